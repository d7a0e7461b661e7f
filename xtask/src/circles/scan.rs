//! What the text of a module names.

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};

/// A path in the text.
#[derive(Debug, Clone)]
pub struct Reference {
    /// The path's names, from `crate`, `self`, `super` or another name on.
    pub path: Vec<String>,
    pub line: usize,
}

/// A name that `use` makes: `*` for everything in a module.
#[derive(Debug)]
pub struct Import {
    pub name: String,
    pub target: Reference,
    /// With `pub` of any kind.
    pub public: bool,
}

/// A module that is declared.
#[derive(Debug)]
pub struct Child {
    pub name: String,
    /// Its text, if it is in this file.
    pub text: Option<Text>,
    /// Its file, if `#[path = ".."]` says which.
    pub path: Option<String>,
}

/// One module's text.
#[derive(Debug, Default)]
pub struct Text {
    pub children: Vec<Child>,
    pub imports: Vec<Import>,
    pub references: Vec<Reference>,
    /// Names of items.
    pub items: BTreeSet<String>,
    /// Every name that may be one in scope, with the first line where it stands. None from `use`.
    pub words: BTreeMap<String, usize>,
}

impl Text {
    pub fn of(tokens: TokenStream) -> Self {
        let mut text = Self::default();
        text.scan(tokens, true);
        text
    }

    /// `items` says that these tokens are a module's items, not the contents of one item.
    fn scan(&mut self, tokens: TokenStream, items: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        let (mut public, mut path) = (false, None);
        while let Some(token) = tokens.get(at) {
            let was_public = public;
            public = false;
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' && is_test(tokens.get(at + 1)) => {
                    at = end_of_item(&tokens, at + 2);
                    continue;
                }
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    path = path_of(tokens.get(at + 1)).or(path);
                }
                TokenTree::Group(group) => {
                    self.scan(group.stream(), false);
                    // `pub(crate)`
                    public = was_public && group.delimiter() == Delimiter::Parenthesis;
                }
                TokenTree::Ident(word) => match word.to_string().as_str() {
                    "pub" => public = true,
                    "mod" if items => {
                        at = self.module(&tokens, at + 1, path.take());
                        continue;
                    }
                    "use" => {
                        let end = position(&tokens, at, |token| is_punct(token, ';'));
                        self.import(&tokens[at + 1..end], &[], was_public && items);
                        at = end;
                    }
                    "struct" | "enum" | "fn" | "trait" | "type" | "const" | "static" | "union" => {
                        if let Some(TokenTree::Ident(name)) = tokens.get(at + 1).filter(|_| items) {
                            self.items.insert(name.to_string());
                        }
                    }
                    _ => {
                        at = self.path(&tokens, at, word);
                        continue;
                    }
                },
                _ => {}
            }
            at += 1;
        }
    }

    /// `NAME;` or `NAME { .. }`. Returns what follows.
    fn module(&mut self, tokens: &[TokenTree], at: usize, path: Option<String>) -> usize {
        if let Some(TokenTree::Ident(name)) = tokens.get(at) {
            let text = match tokens.get(at + 1) {
                Some(TokenTree::Group(group)) => Some(Self::of(group.stream())),
                _ => None,
            };
            self.children.push(Child { name: name.to_string(), text, path });
        }
        at + 2
    }

    /// The tree of a `use`, below the path `prefix`.
    fn import(&mut self, tokens: &[TokenTree], prefix: &[String], public: bool) {
        let mut path = prefix.to_vec();
        let mut name = None;
        let mut line = 0;
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Ident(word) if word == "as" => {
                    name = tokens.get(at + 1).map(ToString::to_string);
                    break;
                }
                TokenTree::Ident(word) => {
                    path.push(word.to_string());
                    line = word.span().start().line;
                }
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    name = Some("*".to_owned());
                    line = punct.span().start().line;
                }
                TokenTree::Group(group) => {
                    let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                    for tree in inside.split(|token| is_punct(token, ',')).filter(|tree| !tree.is_empty()) {
                        self.import(tree, &path, public);
                    }
                    return;
                }
                _ => {}
            }
        }
        // `use a::{self}`
        if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
        self.imports.push(Import { name, target: Reference { path, line }, public });
    }

    /// The path or single name at `at`. Returns what follows.
    fn path(&mut self, tokens: &[TokenTree], at: usize, first: &Ident) -> usize {
        let line = first.span().start().line;
        let mut path = vec![first.to_string()];
        let mut end = at + 1;
        while let Some(TokenTree::Ident(name)) = tokens.get(end + 2)
            && is_punct(&tokens[end], ':')
            && is_punct(&tokens[end + 1], ':')
        {
            path.push(name.to_string());
            end += 3;
        }
        let before = |back: usize, punct| at.checked_sub(back).is_some_and(|at| is_punct(&tokens[at], punct));
        // A field, a method, or the rest of `<T as Trait>::Name`.
        let is_rest = before(1, '.') || before(1, ':') && before(2, ':');
        if !is_rest {
            self.words.entry(path[0].clone()).or_insert(line);
            if path.len() > 1 {
                self.references.push(Reference { path, line });
            }
        }
        end
    }
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn position(tokens: &[TokenTree], from: usize, wanted: impl Fn(&TokenTree) -> bool) -> usize {
    tokens[from..].iter().position(wanted).map_or(tokens.len(), |offset| from + offset)
}

/// Whether an attribute is `cfg(test)` or `cfg(all(test, ..))`.
fn is_test(attribute: Option<&TokenTree>) -> bool {
    let text = attribute.map(ToString::to_string).unwrap_or_default();
    let text: String = text.chars().filter(|char| !char.is_whitespace()).collect();
    text == "[cfg(test)]" || text.starts_with("[cfg(all(test,")
}

/// The file that an attribute `path = ".."` names.
fn path_of(attribute: Option<&TokenTree>) -> Option<String> {
    let text = attribute?.to_string();
    let value = text.strip_prefix("[path")?.trim_start().strip_prefix('=')?.strip_suffix(']')?;
    Some(value.trim().trim_matches('"').to_owned())
}

/// Where the item that starts at `at` ends.
fn end_of_item(tokens: &[TokenTree], at: usize) -> usize {
    let is_end = |token: &TokenTree| {
        is_punct(token, ';')
            || matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
    };
    position(tokens, at, is_end) + 1
}
