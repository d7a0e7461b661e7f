//! The modules of a crate, and which of them use which.

use super::{
    graph::Arrow,
    scan::{Child, Import, Reference, Text},
};
use anyhow::{Context, Result, anyhow};
use proc_macro2::TokenStream;
use std::{
    fs,
    path::{Path, PathBuf},
};

#[derive(Debug)]
struct Module {
    file: PathBuf,
    /// Index of the module that declares it; the crate's root is its own.
    parent: usize,
    children: Vec<(String, usize)>,
    /// Its name from the root on, as a path.
    name: String,
    text: Text,
}

/// A crate's modules. The first is the root.
#[derive(Debug)]
pub struct Tree {
    modules: Vec<Module>,
}

/// A chain of re-exports longer than this is taken for endless.
const MAX_STEPS: usize = 32;

impl Tree {
    /// Reads the crate with the root file `root`.
    pub fn read(root: &Path) -> Result<Self> {
        let mut tree = Self { modules: Vec::new() };
        let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        tree.add(&name, 0, root, root.parent().unwrap_or(root), read(root)?)?;
        Ok(tree)
    }

    /// Adds the module `name` of the file `file`, and those below it, whose files are in `directory`.
    fn add(
        &mut self,
        name: &str,
        parent: usize,
        file: &Path,
        directory: &Path,
        mut text: Text,
    ) -> Result<usize> {
        let own = self.modules.len();
        let children = std::mem::take(&mut text.children);
        self.modules.push(Module {
            file: file.to_owned(),
            parent,
            children: Vec::new(),
            name: name.to_owned(),
            text,
        });
        for Child { name: child, text, path } in children {
            let below = directory.join(&child);
            let (file, text) = match text {
                Some(text) => (file.to_owned(), text),
                None => {
                    let named = path.map(|path| file.parent().unwrap_or(directory).join(path));
                    let usual = [below.with_extension("rs"), below.join("mod.rs")];
                    let mut files = named.into_iter().chain(usual);
                    let file = files.find(|file| file.is_file()).with_context(|| {
                        format!("there is no file for 'mod {child}' of {}", file.display())
                    })?;
                    let text = read(&file)?;
                    (file, text)
                }
            };
            let path = if own == 0 { child.clone() } else { format!("{name}/{child}") };
            let index = self.add(&path, own, &file, &below, text)?;
            self.modules[own].children.push((child, index));
        }
        Ok(own)
    }

    /// Where no circle may be: among the modules of the top level, the root with them; in a folder, among the folders.
    /// The arrows of each such place.
    pub fn levels(&self) -> impl Iterator<Item = Vec<Arrow>> {
        (0..self.modules.len())
            .filter(|&level| level == 0 || self.is_folder(level))
            .map(|level| self.arrows(level))
    }

    fn arrows(&self, level: usize) -> Vec<Arrow> {
        let mut arrows = Vec::new();
        for (index, module) in self.modules.iter().enumerate() {
            let Some(from) = self.node(level, index) else { continue };
            let mut arrow = |reference: &Reference| {
                let target = self.resolve(index, &reference.path, MAX_STEPS);
                if let Some(to) = target.and_then(|target| self.node(level, target)).filter(|&to| to != from)
                {
                    let (from, to) = (self.modules[from].name.clone(), self.modules[to].name.clone());
                    let what = reference.path.join("::");
                    arrows.push(Arrow { from, to, file: module.file.clone(), line: reference.line, what });
                }
            };
            module.text.references.iter().for_each(&mut arrow);
            for import in &module.text.imports {
                // What the root re-exports is used by the root only if its own code names it.
                if index != 0 || !import.public {
                    arrow(&import.target);
                } else if let Some(&line) = module.text.words.get(&import.name) {
                    arrow(&Reference { path: import.target.path.clone(), line });
                }
            }
        }
        arrows
    }

    /// What stands for `module` among those of `level`: itself, or what it is in.
    fn node(&self, level: usize, mut module: usize) -> Option<usize> {
        if level == 0 && module == 0 {
            return Some(0);
        }
        while module != 0 && self.modules[module].parent != level {
            module = self.modules[module].parent;
        }
        Some(module).filter(|&module| module != 0 && (level == 0 || self.is_folder(module)))
    }

    /// Whether a module has files beside its own.
    fn is_folder(&self, module: usize) -> bool {
        let Module { file, children, .. } = &self.modules[module];
        children.iter().any(|&(_, child)| self.modules[child].file != *file)
    }

    fn child(&self, module: usize, name: &str) -> Option<usize> {
        self.modules[module].children.iter().find(|(child, _)| child == name).map(|&(_, index)| index)
    }

    /// The module that a path, as written in the module `from`, leads into. `None` for other crates.
    fn resolve(&self, from: usize, path: &[String], steps: usize) -> Option<usize> {
        let steps = steps.checked_sub(1)?;
        let mut names = path;
        let mut module = match names.first()?.as_str() {
            "crate" => 0,
            "self" | "super" => from,
            // A name that `use` makes is counted there.
            name => self.child(from, name).map(|_| from)?,
        };
        while let Some((name, rest)) = names.split_first() {
            match name.as_str() {
                "crate" | "self" => {}
                "super" => module = self.modules[module].parent,
                name => match self.child(module, name) {
                    Some(child) => module = child,
                    // A name of the crate's root stands for what the root takes it from.
                    None if module == 0 => return self.resolve_in_root(name, rest, steps),
                    None => return Some(module),
                },
            }
            names = rest;
        }
        Some(module)
    }

    fn resolve_in_root(&self, name: &str, rest: &[String], steps: usize) -> Option<usize> {
        let root = &self.modules[0].text;
        if root.items.contains(name) {
            return Some(0);
        }
        if let Some(import) = root.imports.iter().find(|import| import.name == name) {
            return self.resolve(0, &[&import.target.path, rest].concat(), steps);
        }
        let globs = root.imports.iter().filter(|import| import.name == "*");
        let defined = globs.filter_map(|glob| self.resolve(0, &glob.target.path, steps)).find(|&module| {
            let text = &self.modules[module].text;
            let is_it = |import: &Import| import.public && import.name == name;
            text.items.contains(name) || text.imports.iter().any(is_it)
        });
        defined.or(Some(0))
    }
}

fn read(file: &Path) -> Result<Text> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let tokens: TokenStream =
        text.parse().map_err(|error| anyhow!("{} is not Rust: {error}", file.display()))?;
    Ok(Text::of(tokens))
}
