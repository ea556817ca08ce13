//! Completions, man pages and `help`: made from the same definitions, and installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::harness::{Sandbox, names};

/// The commands that `--help` lists.
fn commands(sandbox: &Sandbox) -> Vec<String> {
    let help = sandbox.run(&["--help"]).quiet();
    let (_, list) = help.text().split_once("Commands:\n").unwrap();
    let (list, _) = list.split_once("\n\n").unwrap();
    let name = |line: &str| line.split_whitespace().next().unwrap().to_string();
    let names: Vec<String> = list.lines().map(name).filter(|n| n != "help").collect();
    assert!(names.len() >= 10, "{names:?}");
    names
}

/// The long options that a command's help lists.
fn options(sandbox: &Sandbox, command: &str) -> BTreeSet<String> {
    let help = sandbox.run(&[command, "--help"]).quiet();
    let lines = help.text().lines().map(str::trim_start);
    let of_options = lines.filter(|line| line.starts_with('-'));
    let words = of_options.filter_map(|line| line.split_once("--").map(|(_, rest)| rest));
    let end = |c: char| !(c.is_ascii_lowercase() || c == '-');
    words
        .map(|rest| rest.split(end).next().unwrap().to_string())
        .collect()
}

/// Runs a program if it is there.
fn checked(program: &str, args: &[&str]) -> Option<Output> {
    Command::new(program).args(args).output().ok()
}

#[test]
fn completions_name_every_command_and_option() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let run = sandbox.run(&["completions", shell]).quiet();
        let text = run.text();
        for command in commands(&sandbox) {
            let word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
            let mut words = text.split(|c| !word(c));
            assert!(words.any(|w| w == command), "{shell}: {command}");
            for option in options(&sandbox, &command) {
                let spelt = match shell {
                    "fish" => format!("-l {option}"),
                    _ => format!("--{option}"),
                };
                assert!(text.contains(&spelt), "{shell}: {command} --{option}");
            }
        }
        for hidden in ["prefetcher", "man-pages", "system-log"] {
            assert!(!text.contains(hidden), "{shell}: {hidden}");
        }
        let file = sandbox.write(&format!("completions.{shell}"), text);
        let syntax = checked(shell, &["-n", file.to_str().unwrap()]);
        assert!(shell != "bash" || syntax.is_some());
        if let Some(output) = syntax {
            assert!(output.status.success(), "{shell}: {output:?}");
        }
    }
    sandbox.run(&["completions", "tcsh"]).refused(2, "tcsh");
}

/// A page that is there is replaced; a link there is no way to another file.
#[test]
fn k23_man_pages_go_into_a_directory() {
    let sandbox = Sandbox::new();
    let names = sandbox.names();
    sandbox.write("theirs", "theirs");
    fs::create_dir(sandbox.path("man")).unwrap();
    std::os::unix::fs::symlink("../theirs", sandbox.path("man/modeloci.1")).unwrap();
    sandbox.run(&["man-pages", "man"]).quiet();
    assert_eq!(
        fs::read_to_string(sandbox.path("theirs")).unwrap(),
        "theirs"
    );
    let page = |name: &str| fs::read_to_string(sandbox.path("man").join(name)).unwrap();
    assert!(page("modeloci.1").contains(".TH modeloci 1"));
    for command in commands(&sandbox) {
        assert!(page(&format!("modeloci-{command}.1")).contains("NAME"));
    }
    assert!(!sandbox.path("man/modeloci-prefetcher.1").exists());
    sandbox
        .run(&["man-pages", "absent"])
        .refused(5, "cannot open directory absent");
    assert_eq!(sandbox.names().len(), names.len() + 2);
}

/// bash itself, with what it was given.
#[test]
fn bash_completes_commands_and_options() {
    let sandbox = Sandbox::new();
    let text = sandbox.run(&["completions", "bash"]).quiet();
    sandbox.write("modeloci.bash", text.text());
    let script = r#"
        source "$1"/modeloci.bash
        complete_() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _modeloci modeloci "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            echo "${COMPREPLY[*]}"
        }
        complete_ modeloci insp
        complete_ modeloci pack --meta
    "#;
    let directory = sandbox.real("");
    let args = ["-c", script, "bash", &directory];
    let output = checked("bash", &args).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text,
        "inspect\n--metadata\n",
        "{:?}",
        String::from_utf8(output.stderr)
    );
}

/// The names of the files that an installation has.
fn installed(prefix: &Path) -> Vec<String> {
    let output = checked(
        "find",
        &[prefix.to_str().unwrap(), "-type", "f", "-printf", "%P\\n"],
    );
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let mut files: Vec<String> = text.lines().map(str::to_string).collect();
    files.sort();
    files
}

#[test]
fn an_installation_has_man_pages_and_completions_and_goes_again() {
    let sandbox = Sandbox::new();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install");
    let prefix = sandbox.path("a prefix");
    sandbox.write("a prefix/share/man/man1/other.1", "another's");
    sandbox.write(
        "a prefix/share/man/man1/modeloci-gone.1",
        "of an older version",
    );
    let install = |more: &[&str]| {
        let mut command = Command::new(&script);
        command.arg("--prefix").arg(&prefix).args(more);
        command.current_dir(sandbox.path("")).output().unwrap()
    };
    let done = install(&["--binary", env!("CARGO_BIN_EXE_modeloci")]);
    assert!(done.status.success(), "{done:?}");
    let mut expected: Vec<String> = commands(&sandbox)
        .iter()
        .map(|command| format!("share/man/man1/modeloci-{command}.1"))
        .collect();
    for file in [
        "bin/modeloci",
        "share/bash-completion/completions/modeloci",
        "share/fish/vendor_completions.d/modeloci.fish",
        "share/man/man1/modeloci.1",
        "share/man/man1/other.1",
        "share/zsh/site-functions/_modeloci",
    ] {
        expected.push(file.into());
    }
    expected.sort();
    assert_eq!(installed(&prefix), expected);

    let version = checked(
        prefix.join("bin/modeloci").to_str().unwrap(),
        &["--version"],
    );
    assert!(version.unwrap().status.success());
    let page =
        |name: &str| fs::read_to_string(prefix.join(format!("share/man/man1/{name}.1"))).unwrap();
    let main = page("modeloci").replace("\\-", "-");
    for command in commands(&sandbox) {
        assert!(
            main.contains(&format!("modeloci-{command}(1)")),
            "{command}"
        );
        let own = page(&format!("modeloci-{command}")).replace("\\-", "-");
        for option in options(&sandbox, &command) {
            assert!(own.contains(&format!("--{option}")), "{command} --{option}");
        }
    }
    if let Some(output) = checked(
        "man",
        &[
            "-l",
            "--warnings",
            "-E",
            "UTF-8",
            "-P",
            "cat",
            prefix
                .join("share/man/man1/modeloci-pack.1")
                .to_str()
                .unwrap(),
        ],
    ) {
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }

    let done = install(&["--uninstall"]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(installed(&prefix), ["share/man/man1/other.1"]);
    for bad in [&["--nonsense"][..], &["--binary"], &["--binary", "absent"]] {
        assert_eq!(install(bad).status.code(), Some(2), "{bad:?}");
    }
    assert_eq!(names(&sandbox.path("")), ["a prefix"]);
}

#[test]
fn help_is_a_command_too() {
    let sandbox = Sandbox::new();
    let all = sandbox.run(&["help"]).quiet();
    assert_eq!(all.text(), sandbox.run(&["--help"]).quiet().text());
    for command in commands(&sandbox) {
        let help = sandbox.run(&["help", &command]).quiet();
        assert_eq!(
            help.text(),
            sandbox.run(&[&command, "--help"]).quiet().text()
        );
    }
    sandbox.run(&["help", "nonsense"]).refused(2, "nonsense");
}
