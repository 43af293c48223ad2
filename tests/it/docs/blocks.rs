//! Every fenced block of every document is what it says it is.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{documents, read};
use crate::support::temp::TempDir;

/// Languages that nothing here can judge.
const UNJUDGED: [&str; 14] = [
    "",
    "text",
    "nginx",
    "caddyfile",
    "haproxy",
    "toml",
    "ini",
    "lua",
    "sql",
    "http",
    "diff",
    "mermaid",
    "gotmpl",
    "dockerfile",
];

/// Documents whose configurations are whole ones: they pass without a warning.
const WHOLE: [&str; 2] = ["docs/migrate-from-oauth2-proxy.md", "docs/migrate-from-oathkeeper.md"];

/// A fenced block, its indentation in a list taken away.
struct Block {
    document: String,
    line: usize,
    /// The first word after the fence.
    language: String,
    /// All of it: a configuration of Doorward is exactly `yaml`.
    info: String,
    text: String,
}

impl Block {
    fn place(&self) -> String {
        format!("{}:{} ({})", self.document, self.line, self.info)
    }

    fn problem(&self) -> Option<String> {
        match self.language.as_str() {
            language if UNJUDGED.contains(&language) => None,
            "sh" | "bash" => shell_problem(&self.text),
            "yaml" | "yml" => serde_saphyr::from_multiple::<Value>(&self.text).err().map(|error| error.to_string()),
            "json" => serde_json::from_str::<Value>(&self.text).err().map(|error| error.to_string()),
            "promql" => promql_parser::parser::parse(&self.text).err(),
            language => Some(format!("{language:?} is no language that is known here")),
        }
    }
}

fn blocks() -> Vec<Block> {
    documents().into_iter().flat_map(|(document, text)| blocks_of(&document, &text)).collect()
}

fn blocks_of(document: &str, text: &str) -> Vec<Block> {
    let (mut blocks, mut open) = (Vec::new(), None::<(usize, Block)>);
    for (number, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(info)) => {
                let (info, indent) = (info.trim().to_owned(), line.len() - line.trim_start().len());
                let language = info.split(' ').next().unwrap_or_default().to_owned();
                let document = document.to_owned();
                open = Some((indent, Block { document, line: number + 1, language, info, text: String::new() }));
            }
            (Some(_), Some("")) => blocks.extend(open.take().map(|(_, block)| block)),
            (Some((indent, block)), _) => {
                let blank = line.chars().take_while(|letter| *letter == ' ').count();
                block.text.extend([&line[blank.min(*indent)..], "\n"]);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{document}: a block is not closed");
    blocks
}

fn shell_problem(script: &str) -> Option<String> {
    let mut shell = Command::new("bash");
    let shell = shell.arg("-n").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut shell = shell.expect("bash can be started");
    shell.stdin.take().expect("it has one").write_all(script.as_bytes()).expect("it reads");
    let output = shell.wait_with_output().expect("it ends");
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Returns the commands of a script, a line each, comments left out.
fn commands(script: &str) -> Vec<String> {
    let whole = script.replace("\\\n", " ");
    let lines = whole.lines().map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[test]
fn every_block_is_what_it_says() {
    let blocks = blocks();
    assert!(blocks.len() > 30, "{} blocks", blocks.len());
    let bad = blocks.iter().filter_map(|block| Some(format!("{}: {}", block.place(), block.problem()?)));
    assert_eq!(bad.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn blocks_that_are_not_what_they_say_are_noticed() {
    for (info, text) in [
        ("sh", "if true; then"),
        ("yaml", "a: [1, 2"),
        ("json", "{'a': 1}"),
        ("promql", "rate(doorward_up[5m"),
        ("klingon", "qapla"),
    ] {
        let [block] =
            blocks_of("a.md", &format!("- x\n\n  ```{info}\n  {text}\n  ```\n")).try_into().ok().expect("one");
        assert!(block.problem().is_some(), "{info}");
    }
    let [good] = blocks_of("a.md", "```yaml kubernetes\na: 1\n---\nb: 2\n```\n").try_into().ok().expect("one");
    assert_eq!(good.problem(), None);
}

#[test]
fn commands_of_doorward_in_documents_exist() {
    let mut seen = 0;
    for block in blocks().iter().filter(|block| ["sh", "bash"].contains(&block.language.as_str())) {
        for command in commands(&block.text).iter().filter(|command| command.starts_with("doorward ")) {
            let words: Vec<&str> = command.split_whitespace().skip(1).collect();
            let name: Vec<&str> = words.iter().take_while(|word| is_command(word)).copied().take(2).collect();
            let two = ["keys", "sessions", "outbox"].contains(&name[0]);
            let name = &name[..if two { 2 } else { 1 }];
            let help = Command::new(env!("CARGO_BIN_EXE_doorward")).args(name).arg("--help").output();
            let help = help.expect("the binary can be started");
            assert!(help.status.success(), "{}: {command}", block.place());
            let help = String::from_utf8_lossy(&help.stdout).into_owned();
            let options = words.iter().filter(|word| word.starts_with("--"));
            let unknown: Vec<_> = options.filter(|word| !help.contains(**word)).collect();
            assert!(unknown.is_empty(), "{}: {command}: {unknown:?}", block.place());
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn whole_configurations_pass_check_without_a_warning() {
    let directory = TempDir::new("documents");
    let secret = directory.join("secret");
    std::fs::write(&secret, "a secret of more than thirty-two bytes").expect("it is writable");
    for document in WHOLE {
        let blocks = blocks_of(document, &read(document));
        let configurations: Vec<&Block> = blocks.iter().filter(|block| block.info == "yaml").collect();
        assert!(!configurations.is_empty(), "{document}");
        for block in configurations {
            let mut text = block.text.clone();
            for name in ["token-key", "redis-password", "directory-password"] {
                text = text.replace(&format!("/run/secrets/{name}"), &secret.display().to_string());
            }
            let file = directory.join("doorward.yaml");
            std::fs::write(&file, text).expect("it is writable");
            let check = Command::new(env!("CARGO_BIN_EXE_doorward")).args(["check", "--config"]).arg(&file).output();
            let check = check.expect("the binary can be started");
            let said = String::from_utf8_lossy(&check.stderr).into_owned();
            assert!(check.status.success() && said.is_empty(), "{}: {said}", block.place());
        }
    }
}

fn is_command(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_ascii_lowercase()) && word.bytes().all(|byte| byte.is_ascii_lowercase())
}
