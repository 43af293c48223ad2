//! The walks of docs/architecture.md are the code's: every hop is where the page says, and there are as
//! many as it says; the order of layers is the one that the tests enforce.

use std::path::{Path, PathBuf};

use super::{LAYERS, read, root};

const PAGE: &str = "docs/architecture.md";
const NUMBERS: [(&str, usize); 4] =
    [("in two hops", 2), ("in three hops", 3), ("in four hops", 4), ("in five hops", 5)];

#[test]
fn each_walk_has_as_many_hops_as_it_says() {
    let page = read(Path::new(PAGE));
    let mut walks = 0;
    for section in page.split("\n## ") {
        let text = section.replace('\n', " ");
        let Some((_, stated)) = NUMBERS.iter().find(|(words, _)| text.contains(words)) else { continue };
        let title = section.lines().next().unwrap_or_default();
        assert_eq!(hops(section).len(), *stated, "{title}");
        walks += 1;
    }
    assert!(walks >= 5, "only {walks} walks state their hops");
}

#[test]
fn each_hop_is_where_the_page_says() {
    let page = read(Path::new(PAGE));
    let hops = page.split("\n## ").filter(|section| section.replace('\n', " ").contains(" hops")).flat_map(hops);
    let missing: Vec<String> = hops
        .filter(|hop| {
            let (module, function) = hop.rsplit_once("::").unwrap_or(("", hop));
            !file_of(module).is_some_and(|file| defines(&read(&file), function))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn each_module_and_function_on_the_page_exists() {
    let page = read(Path::new(PAGE));
    let missing: Vec<&str> = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| {
            name.contains("::") && name.chars().all(|c| c.is_ascii_lowercase() || "_:0123456789".contains(c))
        })
        .filter(|name| {
            let (module, last) = name.rsplit_once("::").unwrap_or(("", name));
            file_of(name).is_none() && !file_of(module).is_some_and(|file| defines(&read(&file), last))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_page_and_the_crate_list_the_layers_in_order() {
    let page = read(Path::new(PAGE)).split_whitespace().collect::<Vec<_>>().join(" ");
    let layers: Vec<String> = LAYERS.iter().map(|layer| layer.join(" ")).collect();
    let order = layers.join(" ← ");
    assert!(page.contains(&order), "{PAGE} does not have: {order}");
    let modules: Vec<String> = read(Path::new("src/lib.rs"))
        .lines()
        .filter_map(|line| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned()))
        .collect();
    let floors: Vec<usize> = modules
        .iter()
        .map(|module| {
            LAYERS.iter().position(|layer| layer.contains(&module.as_str())).expect("every module has a layer")
        })
        .collect();
    assert!(floors.is_sorted(), "src/lib.rs lists a module above what it may name: {modules:?}");
}

// The function that each numbered line of a walk begins with, or names first.
fn hops(section: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for line in section.lines() {
        let number = line.split_once(". ").filter(|(number, _)| number.parse::<usize>().is_ok());
        match (number, items.last_mut()) {
            (Some((_, text)), _) => items.push(text.to_owned()),
            (None, Some(item)) if line.starts_with("   ") => item.push_str(line),
            _ => {}
        }
    }
    items.iter().map(|item| item.split('`').nth(1).unwrap_or_default().to_owned()).collect()
}

fn file_of(module: &str) -> Option<PathBuf> {
    let file = PathBuf::from(format!("src/{}.rs", module.replace("::", "/")));
    root().join(&file).is_file().then_some(file)
}

fn defines(text: &str, function: &str) -> bool {
    text.contains(&format!("fn {function}(")) || text.contains(&format!("fn {function}<"))
}
