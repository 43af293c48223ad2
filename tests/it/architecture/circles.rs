//! No two files of `src/` may need each other, so that one of them can always be read first.
//!
//! An edge leads from a file to the file that defines what it names. Re-exports are followed, and
//! `mod x;` is none: a parent that only lists its children does not depend on them. There are two
//! kinds of circles: among siblings and strangers, and between a parent that uses its children and
//! children that use what the parent defines. The first kind tangles rooms, the second only one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{production_code, sources};

/// Parents that put their children together, which use what the parent defines: each is one room, read as one.
/// A new one is a decision; the list may only become shorter by itself.
const PARENTS_IN_CIRCLES: &[&str] = &[
    "src/cli.rs",
    "src/config.rs",
    "src/config/check.rs",
    "src/directory.rs",
    "src/directory/outbox.rs",
    "src/directory/reown.rs",
    "src/identity.rs",
    "src/metrics.rs",
    "src/server.rs",
    "src/session.rs",
    "src/store.rs",
    "src/store/redis.rs",
    "src/store/sqlite.rs",
];

/// A path as it stands in the code, with the name that a `use` gives it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    path: Vec<String>,
    /// What the file calls it; `None` outside of `use`.
    alias: Option<String>,
}

/// One file, as the module that it is.
struct Module {
    file: PathBuf,
    children: BTreeSet<String>,
    names: Vec<Named>,
}

/// Every file by its module's path; that of `lib.rs` is empty.
struct Crate(BTreeMap<Vec<String>, Module>);

#[test]
fn files_do_not_need_each_other() {
    let whole = Crate::read();
    let edges = without_descents(whole.edges());
    let found = circles(&edges);
    assert!(found.is_empty(), "{:#?}", edges_inside(&edges, &found));
}

#[test]
fn parents_and_children_do_not_need_each_other() {
    let edges = Crate::read().edges();
    let found = circles(&edges);
    let inside = edges_inside(&edges, &found);
    let uses_its_children = |file: &&String| inside.iter().any(|(from, to)| from == *file && is_above(from, to));
    let parents: Vec<&String> = found.iter().flatten().filter(uses_its_children).collect();
    assert_eq!(parents, PARENTS_IN_CIRCLES, "{inside:#?}");
}

#[test]
fn a_circle_is_seen_through_every_way_of_naming() {
    let parse = |parent: &str, child: &str, other: &str| {
        let files = [("lib.rs", "mod a; mod b;"), ("a.rs", parent), ("a/c.rs", child), ("b.rs", other)];
        circles(&Crate::parse(files.map(|(file, text)| (PathBuf::from("src").join(file), text.to_owned()))).edges())
    };
    let circle = |files: &[&str]| BTreeSet::from([files.iter().map(|file| format!("src/{file}")).collect()]);
    let none = BTreeSet::new();
    let parent = "pub mod c;\nuse self::c::Child;\npub struct Parent(Child);";
    assert_eq!(parse(parent, "use super::Parent;\npub struct Child;", ""), circle(&["a.rs", "a/c.rs"]));
    assert_eq!(parse(parent, "pub struct Child; fn f(_: &crate::a::Parent) {}", ""), circle(&["a.rs", "a/c.rs"]));
    assert_eq!(parse(parent, "pub struct Child;", "use crate::a::{Parent, c::Child};"), none);
    assert_eq!(parse("pub mod c;\npub struct Parent;", "use super::{Parent as P};\nstruct Child;", ""), none);
    assert_eq!(
        parse("mod c;\nfn f() { c::g(); }\nconst X: u8 = 1;", "fn g() -> u8 { super::X }", ""),
        circle(&["a.rs", "a/c.rs"])
    );
    let re_export = "mod c;\npub use self::c::Child;\npub use crate::b::Other;";
    assert_eq!(parse(re_export, "use super::Other;\npub struct Child;", "pub struct Other;"), none, "followed to b.rs");
    assert_eq!(
        parse(re_export, "use super::Other;\npub struct Child;", "use crate::a::Child;\npub struct Other;"),
        circle(&["a/c.rs", "b.rs"])
    );
    assert_eq!(parse("pub(in crate::b) struct A;", "", "use crate::a::A;"), none, "a visibility is no dependency");
    assert_eq!(parse("// crate::b::X\npub struct A;", "", "use crate::a::A;\nconst S: &str = \"crate::b\";"), none);
    assert_eq!(
        parse(
            "pub fn f() { crate::b::g() }",
            "",
            "use crate::\n    a::{\n        self,\n    };\npub fn g() { a::f() }"
        ),
        circle(&["a.rs", "b.rs"])
    );
}

impl Crate {
    fn read() -> Self {
        Self::parse(sources().into_iter().map(|file| {
            let text = production_code(&file);
            (file, text)
        }))
    }

    fn parse(files: impl IntoIterator<Item = (PathBuf, String)>) -> Self {
        let mut modules = BTreeMap::new();
        for (file, text) in files {
            let path = module_path(&file);
            if path != ["main"] {
                modules.insert(path, (file, without_comments_and_texts(&text)));
            }
        }
        let paths: BTreeSet<Vec<String>> = modules.keys().cloned().collect();
        let children_of = |path: &[String]| {
            let under = paths.iter().filter(|child| child.len() == path.len() + 1 && child.starts_with(path));
            under.filter_map(|child| child.last().cloned()).collect::<BTreeSet<_>>()
        };
        let module = |(path, (file, code)): (Vec<String>, (PathBuf, String))| {
            let children = children_of(&path);
            let names = named(&code, &children);
            (path, Module { file, children, names })
        };
        Self(modules.into_iter().map(module).collect())
    }

    /// Returns which file names which.
    fn edges(&self) -> BTreeMap<String, BTreeSet<String>> {
        let edges_of = |(path, module): (&Vec<String>, &Module)| {
            let named = module.names.iter().filter_map(|named| self.definition(path, &named.path, 0));
            let others = named.filter(|file| *file != module.file).map(|file| file.display().to_string());
            (module.file.display().to_string(), others.collect())
        };
        self.0.iter().map(edges_of).collect()
    }

    // Returns the file that defines what `path` means in the module `at`.
    fn definition(&self, at: &[String], path: &[String], depth: usize) -> Option<&Path> {
        // Imports that lead nowhere but to each other.
        if depth > 8 {
            return None;
        }
        let mut here = at.to_vec();
        let mut rest = path.iter();
        let mut first = true;
        while let Some(segment) = rest.next() {
            let module = self.0.get(&here)?;
            match segment.as_str() {
                "crate" => here.clear(),
                "self" => {}
                "super" => drop(here.pop()),
                "*" => return Some(&module.file),
                name if module.children.contains(name) => here.push(name.to_owned()),
                name => {
                    let imported = module.names.iter().find(|named| named.alias.as_deref() == Some(name));
                    let imported = imported.filter(|named| named.path != path || here != at);
                    return match imported {
                        Some(named) => {
                            let whole: Vec<String> = named.path.iter().chain(rest).cloned().collect();
                            self.definition(&here, &whole, depth + 1)
                        }
                        // Outside of the crate, or an item of its own.
                        None if first => None,
                        None => Some(&module.file),
                    };
                }
            }
            first = false;
        }
        self.0.get(&here).map(|module| module.file.as_path())
    }
}

/// Leaves out what parents use of their own children.
fn without_descents(mut edges: BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    for (from, to) in &mut edges {
        to.retain(|to| !is_above(from, to));
    }
    edges
}

/// Returns whether a file is the parent of another one, or the parent's parent, and so on.
fn is_above(file: &str, other: &str) -> bool {
    let folder = file.trim_end_matches("lib.rs").trim_end_matches(".rs").trim_end_matches('/');
    other.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// Returns the edges inside of circles, for the message.
fn edges_inside(
    edges: &BTreeMap<String, BTreeSet<String>>,
    circles: &BTreeSet<BTreeSet<String>>,
) -> Vec<(String, String)> {
    let inside = |from: &String, to: &String| circles.iter().any(|files| files.contains(from) && files.contains(to));
    let pairs = edges.iter().flat_map(|(from, to)| to.iter().map(move |to| (from.clone(), to.clone())));
    pairs.filter(|(from, to)| inside(from, to)).collect()
}

fn module_path(file: &Path) -> Vec<String> {
    let path = file.strip_prefix("src").unwrap().with_extension("");
    let path: Vec<String> = path.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    if path == ["lib"] { Vec::new() } else { path }
}

/// Returns each group of files that need each other.
fn circles(edges: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<BTreeSet<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        edges.keys().map(|from| (from, reachable(edges, from))).collect();
    let in_circle = |file: &&String| reached[*file].contains(*file);
    let with = |file: &String| {
        let mutual = |other: &&&String| reached.get(**other).is_some_and(|back| back.contains(file));
        reached[file].iter().filter(mutual).map(|other| (*other).clone()).collect()
    };
    edges.keys().filter(in_circle).map(with).collect()
}

fn reachable<'a>(edges: &'a BTreeMap<String, BTreeSet<String>>, from: &String) -> BTreeSet<&'a String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&String> = edges[from].iter().collect();
    while let Some(file) = open.pop() {
        if found.insert(file) {
            open.extend(edges.get(file).into_iter().flatten());
        }
    }
    found
}

// Good enough for code that rustfmt has seen: no raw text here holds a quotation mark.
fn without_comments_and_texts(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines() {
        // A visibility names no dependency.
        let line = line.replace("pub(in crate::", "pub(in ");
        let mut rest = line.as_str();
        while let Some(at) = rest.find(['"', '/']) {
            let (before, after) = rest.split_at(at);
            code.push_str(before);
            if after.starts_with("//") {
                rest = "";
            } else if let Some(inside) = after.strip_prefix('"') {
                let mut escaped = false;
                let end = inside.find(|next| {
                    let ends = next == '"' && !escaped;
                    escaped = next == '\\' && !escaped;
                    ends
                });
                rest = end.map_or("", |end| &inside[end + 1..]);
            } else {
                code.push('/');
                rest = &after[1..];
            }
        }
        code.push_str(rest);
        code.push('\n');
    }
    code
}

/// Returns every path of this crate that the code names.
fn named(code: &str, children: &BTreeSet<String>) -> Vec<Named> {
    let mut names = Vec::new();
    let mut rest = String::new();
    let mut inside_use: Option<String> = None;
    for line in code.lines() {
        let start = line.trim_start();
        let begins = ["use ", "pub use "].iter().any(|begin| start.starts_with(begin))
            || (start.starts_with("pub(") && start.contains(") use "));
        if begins && inside_use.is_none() {
            inside_use = Some(start.split_once("use ").unwrap().1.to_owned());
        } else if let Some(tree) = &mut inside_use {
            tree.push_str(start);
        } else {
            rest.push_str(line);
            rest.push('\n');
        }
        if let Some(tree) = inside_use.take_if(|tree| tree.contains(';')) {
            flatten(tree.trim_end_matches(';').trim(), &[], &mut names);
        }
    }
    let roots = ["crate", "super", "self"].into_iter().chain(children.iter().map(String::as_str));
    let aliases: BTreeSet<String> = names.iter().filter_map(|named| named.alias.clone()).collect();
    for root in roots.chain(aliases.iter().map(String::as_str)).map(str::to_owned).collect::<BTreeSet<_>>() {
        names.extend(inline(&rest, &root));
    }
    names
}

// `a::{b, c::{self, d as e}}` as four paths.
fn flatten(tree: &str, prefix: &[String], names: &mut Vec<Named>) {
    let joined = |path: &str| {
        let segments = path.split("::").map(str::trim).filter(|segment| !segment.is_empty());
        prefix.iter().cloned().chain(segments.map(str::to_owned)).collect::<Vec<_>>()
    };
    if let Some((before, inside)) = tree.split_once('{') {
        let inside = inside.trim_end().trim_end_matches('}').to_owned() + &"}".repeat(unclosed(inside));
        for part in top_level_parts(&inside) {
            flatten(&part, &joined(before), names);
        }
        return;
    }
    let (path, alias) =
        tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias.trim().to_owned())));
    let mut path = joined(path);
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let alias = alias.or_else(|| path.last().cloned());
    if !path.is_empty() {
        names.push(Named { path, alias });
    }
}

// How many braces of nested groups the trimming of the outer one took along.
fn unclosed(inside: &str) -> usize {
    let trimmed = inside.trim_end().trim_end_matches('}');
    trimmed.matches('{').count() - trimmed.matches('}').count()
}

fn top_level_parts(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0_usize);
    for next in text.chars() {
        match next {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(next);
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

// Paths that begin with `root::` outside of `use`.
fn inline(code: &str, root: &str) -> Vec<Named> {
    let is_part = |next: char| next.is_alphanumeric() || next == '_';
    let begin = format!("{root}::");
    let paths = code.match_indices(&begin).filter_map(|(at, _)| {
        if code[..at].ends_with(|before: char| is_part(before) || before == ':' || before == '$') {
            return None;
        }
        let end = code[at..].find(|next: char| !is_part(next) && next != ':').map_or(code.len(), |end| at + end);
        let path: Vec<String> = code[at..end].split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Some(Named { path, alias: None })
    });
    paths.collect()
}
