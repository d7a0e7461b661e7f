//! A table of options, and what follows from it: the parser, and clap's description for help, completions and manual
//! pages.
//!
//! clap parses the command lines of the other verbs. To build only the arguments of `nabla run` takes it 7 % of the
//! time in which a guest starts, 22 % with all verbs. So clap is not part of a run; it only makes the texts.

use clap::{ArgAction, ValueHint, builder::PossibleValuesParser, value_parser};
use lexopt::Arg;
use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

/// How similar the name of an option has to be to be suggested, from 0 to 1: the same as in clap.
const SIMILAR: f64 = 0.7;

/// Options by the section of the help that they are in.
pub type Table<T> = [(Option<&'static str>, &'static [Opt<T>])];

/// An option that sets something in a `T`.
pub struct Opt<T> {
    long: &'static str,
    short: Option<char>,
    help: &'static str,
    default: Option<fn() -> String>,
    choices: fn() -> Vec<&'static str>,
    value: Value<T>,
}

/// Takes a value, which is not empty, into a `T`.
type Set<T> = fn(&mut T, &OsStr) -> Result<(), String>;

/// Which values an option takes, what they are called in the help, and where they go.
pub enum Value<T> {
    /// None; this becomes true.
    No(fn(&mut T) -> &mut bool),
    /// One: the next word, or after `=`.
    One(&'static str, Set<T>),
    /// The same, and the option may be given several times.
    Many(&'static str, Set<T>),
    /// One that is a path.
    Path(&'static str, fn(&mut T) -> &mut Option<PathBuf>),
    /// A path after `=`, or else this one.
    OptionalPath(&'static str, &'static str, fn(&mut T) -> &mut Option<PathBuf>),
}

impl<T> Opt<T> {
    /// An option by its name without the two dashes. The first paragraph of the help is its short form.
    pub const fn new(long: &'static str, help: &'static str, value: Value<T>) -> Self {
        Self { long, short: None, help, default: None, choices: Vec::new, value }
    }

    /// It has a letter, too.
    pub const fn short(self, letter: char) -> Self {
        Self { short: Some(letter), ..self }
    }

    /// The value that it has when it is not given, for the help.
    pub const fn default(self, default: fn() -> String) -> Self {
        Self { default: Some(default), ..self }
    }

    /// Every value that there is.
    pub const fn choices(self, choices: fn() -> Vec<&'static str>) -> Self {
        Self { choices, ..self }
    }

    fn to_clap(&self) -> clap::Arg {
        let arg = clap::Arg::new(self.long).long(self.long).short(self.short);
        let arg = match self.help.split_once("\n\n") {
            Some((short, _)) => arg.help(short.trim_end_matches('.')).long_help(self.help),
            None => arg.help(self.help),
        };
        let arg = arg.default_values(self.default.map(|default| default()));
        let arg = match (self.choices)() {
            choices if choices.is_empty() => arg.value_parser(value_parser!(OsString)),
            choices => arg.value_parser(PossibleValuesParser::new(choices)),
        };
        match self.value {
            Value::No(_) => arg.value_parser(value_parser!(bool)).num_args(0).action(ArgAction::SetTrue),
            Value::One(name, _) => arg.value_name(name).num_args(1),
            Value::Many(name, _) => arg.value_name(name).num_args(1).action(ArgAction::Append),
            Value::Path(name, _) => arg.value_name(name).num_args(1).value_hint(ValueHint::AnyPath),
            Value::OptionalPath(name, ..) => {
                arg.value_name(name).num_args(0..=1).require_equals(true).value_hint(ValueHint::AnyPath)
            }
        }
    }

    /// Takes what the command line has for it.
    fn take(&self, options: &mut T, parser: &mut lexopt::Parser) -> Result<(), String> {
        let value = match self.value {
            // A value after `=` is what the parser finds next, and refuses.
            Value::No(_) => Some("yes".into()),
            Value::OptionalPath(_, default, _) => {
                Some(parser.optional_value().unwrap_or_else(|| default.into()))
            }
            _ => parser.values().ok().and_then(|mut values| values.next()),
        };
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            let choices = (self.choices)().join(", ");
            let list = if choices.is_empty() { choices } else { format!("\n  [possible values: {choices}]") };
            return Err(format!("a value is required for '{}' but none was supplied{list}", self.to_clap()));
        };
        self.set(options, &value)
            .map_err(|why| format!("invalid value '{}' for '{}': {why}", value.display(), self.to_clap()))
    }

    fn set(&self, options: &mut T, value: &OsStr) -> Result<(), String> {
        match self.value {
            Value::No(place) => *place(options) = true,
            Value::Path(_, place) | Value::OptionalPath(_, _, place) => *place(options) = Some(value.into()),
            Value::One(_, set) | Value::Many(_, set) => return set(options, value),
        }
        Ok(())
    }
}

/// What clap knows of the options.
pub fn to_clap<T>(table: &'static Table<T>) -> impl Iterator<Item = clap::Arg> {
    table
        .iter()
        .flat_map(|(heading, options)| options.iter().map(|option| option.to_clap().help_heading(*heading)))
}

/// What a command line says.
#[derive(Debug, Default)]
pub struct Line<T> {
    /// What its options set.
    pub options: T,
    /// The words that belong to no option.
    pub words: Vec<OsString>,
    /// How often -v was given.
    pub verbosity: u8,
}

/// Why a command line is not followed.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// This option asks for help.
    Help(&'static str),
    /// This is wrong with it.
    Mistake(String),
}

/// Parses the words of a command line. The table has up to 64 options; -v and -h, which every verb has, are not in it.
pub fn parse<T: Default>(table: &'static Table<T>, words: &[OsString]) -> Result<Line<T>, Stop> {
    let mut line = Line { options: T::default(), words: Vec::new(), verbosity: 0 };
    let mut seen = 0_u64;
    let mut parser = lexopt::Parser::from_args(words);
    while let Some(word) = parser.next().map_err(|error| Stop::Mistake(error.to_string()))? {
        let is_meant = |option: &Opt<T>| match &word {
            Arg::Short(letter) => option.short == Some(*letter),
            Arg::Long(name) => option.long == *name,
            Arg::Value(_) => false,
        };
        let found = options(table).enumerate().find(|(_, option)| is_meant(option));
        match (word, found) {
            (_, Some((index, option))) => {
                if seen & 1 << index != 0 && !matches!(option.value, Value::Many(..)) {
                    let message =
                        format!("the argument '{}' cannot be used multiple times", option.to_clap());
                    return Err(Stop::Mistake(message));
                }
                seen |= 1 << index;
                option.take(&mut line.options, &mut parser).map_err(Stop::Mistake)?;
            }
            (Arg::Value(word), None) => line.words.push(word),
            (Arg::Short('v') | Arg::Long("verbose"), None) => {
                line.verbosity = line.verbosity.saturating_add(1);
            }
            (Arg::Short('h'), None) => return Err(Stop::Help("-h")),
            (Arg::Long("help"), None) => return Err(Stop::Help("--help")),
            (Arg::Short(letter), None) => return Err(unknown(table, &format!("-{letter}"))),
            (Arg::Long(name), None) => return Err(unknown(table, &format!("--{name}"))),
        }
    }
    Ok(line)
}

fn options<T>(table: &'static Table<T>) -> impl Iterator<Item = &'static Opt<T>> {
    table.iter().flat_map(|(_, options)| *options)
}

/// What is said about an option that is not in the table.
fn unknown<T>(table: &'static Table<T>, word: &str) -> Stop {
    let names = options(table).map(|option| option.long).chain(["verbose", "help"]);
    let similarity = |name: &str| strsim::jaro(word.trim_start_matches('-'), name);
    let tip = match names.max_by(|a, b| similarity(a).total_cmp(&similarity(b))) {
        Some(name) if similarity(name) > SIMILAR => format!("a similar argument exists: '--{name}'"),
        _ => format!("to pass '{word}' to the guest, use '-- {word}'"),
    };
    Stop::Mistake(format!("unexpected argument '{word}' found\n\n  tip: {tip}"))
}

/// What clap understands by the words, with the same table.
#[cfg(test)]
pub fn parse_with_clap<T: Default>(
    table: &'static Table<T>,
    command: clap::Command,
    words: &[OsString],
) -> Option<Line<T>> {
    use clap::parser::ValueSource::CommandLine;
    let verbose = clap::Arg::new("verbose").short('v').long("verbose").action(ArgAction::Count);
    let matches = command.no_binary_name(true).arg(verbose).try_get_matches_from(words).ok()?;
    let mut line = Line { options: T::default(), words: Vec::new(), verbosity: matches.get_count("verbose") };
    for option in options(table).filter(|option| matches.value_source(option.long) == Some(CommandLine)) {
        let values: Vec<&OsStr> = matches.get_raw(option.long).into_iter().flatten().collect();
        match option.value {
            Value::No(_) => option.set(&mut line.options, OsStr::new("yes")).ok()?,
            Value::OptionalPath(_, default, _) if values.is_empty() => {
                option.set(&mut line.options, OsStr::new(default)).ok()?;
            }
            _ => {}
        }
        for value in values.into_iter().filter(|_| !matches!(option.value, Value::No(_))) {
            option.set(&mut line.options, Some(value).filter(|value| !value.is_empty())?).ok()?;
        }
    }
    for positional in ["image", "args"] {
        line.words.extend(matches.get_raw(positional).into_iter().flatten().map(OsStr::to_owned));
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Meal {
        soup: bool,
        main: Option<String>,
        sides: Vec<String>,
        wine: Option<PathBuf>,
    }

    const TABLE: &Table<Meal> = &[
        (None, &[Opt::<Meal>::new("soup", "Soup", Value::No(|meal| &mut meal.soup))]),
        (
            Some("Others"),
            &[
                Opt::<Meal>::new(
                    "main",
                    "Course",
                    Value::One("NAME", |meal, value| dish(value).map(|name| meal.main = Some(name))),
                )
                .short('m')
                .choices(|| vec!["fish", "pie"]),
                Opt::<Meal>::new(
                    "side",
                    "Side",
                    Value::Many("NAME", |meal, value| dish(value).map(|name| meal.sides.push(name))),
                )
                .short('s'),
                Opt::<Meal>::new("wine", "Wine", Value::OptionalPath("NAME", "red", |meal| &mut meal.wine)),
            ],
        ),
    ];

    fn dish(value: &OsStr) -> Result<String, String> {
        value.to_str().filter(|name| *name != "soap").map(str::to_owned).ok_or_else(|| "not food".to_owned())
    }

    fn parse(line: &str) -> Result<Line<Meal>, Stop> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        super::parse(TABLE, &words)
    }

    #[test]
    fn options_and_words_are_told_apart() {
        let line = parse("a --main=pie -v -sx b --soup --side - -s=y -vv --wine -- --soup").unwrap();
        let sides = ["x", "-", "y"].map(str::to_owned).to_vec();
        let expected = Meal { soup: true, main: Some("pie".into()), sides, wine: Some("red".into()) };
        assert_eq!((line.options, line.verbosity), (expected, 3));
        assert_eq!(line.words, ["a", "b", "--soup"]);
        assert_eq!(parse("--wine=white x").unwrap().options.wine, Some("white".into()));
    }

    #[test]
    fn mistakes_are_explained() {
        for (line, message) in [
            ("--mian x", "unexpected argument '--mian' found\n\n  tip: a similar argument exists: '--main'"),
            ("--verbos", "'--verbose'"),
            ("--unlike", "to pass '--unlike' to the guest, use '-- --unlike'"),
            ("-x", "unexpected argument '-x' found"),
            (
                "--main",
                "a value is required for '--main <NAME>' but none was supplied\n  [possible values: fish, pie]",
            ),
            ("--main --soup", "a value is required for '--main <NAME>'"),
            ("--main=", "a value is required for '--main <NAME>'"),
            ("--wine=", "a value is required for '--wine[=<NAME>]'"),
            ("-s soap", "invalid value 'soap' for '--side <NAME>': not food"),
            ("--main pie -mpie", "the argument '--main <NAME>' cannot be used multiple times"),
            ("--soup --soup", "the argument '--soup' cannot be used multiple times"),
            ("--soup=hot", "'--soup'"),
        ] {
            match parse(line) {
                Err(Stop::Mistake(text)) => assert!(text.contains(message), "{line}: {text}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn help_is_asked_for_by_either_option() {
        assert_eq!(parse("--soup -h --nonsense").unwrap_err(), Stop::Help("-h"));
        assert_eq!(parse("x -v --help").unwrap_err(), Stop::Help("--help"));
        assert_eq!(parse("-- --help").unwrap().words, ["--help"]);
    }
}
