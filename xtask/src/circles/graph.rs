//! Circles in a graph of modules.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write,
    path::{Path, PathBuf},
};

/// One module uses another.
#[derive(Debug, Clone)]
pub struct Arrow {
    pub from: String,
    pub to: String,
    pub file: PathBuf,
    pub line: usize,
    /// The path as it is written.
    pub what: String,
}

/// Modules that all use each other, directly or through others of them.
#[derive(Debug)]
pub struct Circle {
    pub modules: Vec<String>,
    /// Every arrow between them.
    pub arrows: Vec<Arrow>,
}

/// The sets of modules that use each other.
pub fn circles(arrows: &[Arrow]) -> Vec<Circle> {
    let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for arrow in arrows {
        graph.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|from| (*from, reached(&graph, from))).collect();
    let mut circles = Vec::new();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for (module, others) in &reached {
        if !others.contains(module) || done.contains(module) {
            continue;
        }
        let back = |other: &&&str| reached.get(**other).is_some_and(|others| others.contains(module));
        let members: BTreeSet<&str> = others.iter().filter(back).copied().collect();
        done.extend(&members);
        let inside = |arrow: &&Arrow| members.contains(&*arrow.from) && members.contains(&*arrow.to);
        circles.push(Circle {
            arrows: arrows.iter().filter(inside).cloned().collect(),
            modules: members.into_iter().map(str::to_owned).collect(),
        });
    }
    circles
}

/// What can be reached from a module by one arrow or more.
fn reached<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next: VecDeque<&str> = VecDeque::from([from]);
    while let Some(module) = next.pop_front() {
        for to in graph.get(module).into_iter().flatten() {
            if reached.insert(*to) {
                next.push_back(to);
            }
        }
    }
    reached
}

impl Circle {
    /// One line for each pair of modules: how often the first uses the second, and where first.
    pub fn describe(&self, base: &Path) -> String {
        let mut pairs: BTreeMap<(&str, &str), Vec<&Arrow>> = BTreeMap::new();
        for arrow in &self.arrows {
            pairs.entry((&arrow.from, &arrow.to)).or_default().push(arrow);
        }
        let mut text = format!("  {}\n", self.modules.join(", "));
        for ((from, to), arrows) in pairs {
            let _ = writeln!(text, "    {from} -> {to}");
            for arrow in arrows {
                let file = arrow.file.strip_prefix(base).unwrap_or(&arrow.file);
                let _ = writeln!(text, "      {}:{}: {}", file.display(), arrow.line, arrow.what);
            }
        }
        text
    }
}
