//! Packing that is stopped: killed at any moment (k9), or interrupted by a signal.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::forge::{Random, noise};
use crate::packing::{PACK, model, pack, spawn};
use crate::sandbox::{Sandbox, available, needs_root};

#[test]
fn k9_killed_at_any_moment() {
    let sandbox = Sandbox::new();
    let files = model(&sandbox);
    let start = Instant::now();
    assert!(spawn(&sandbox).wait().unwrap().success());
    let whole = start.elapsed();
    let archive = fs::read(sandbox.path("m.tar")).unwrap();
    let mut random = Random(9);
    let mut killed = 0;
    for force in [false, true] {
        sandbox.write("m.tar", &archive);
        for _ in 0..12 {
            if !force {
                let _ = fs::remove_file(sandbox.path("m.tar"));
            }
            let mut command = sandbox.command(&PACK);
            if force {
                command.arg("--force");
            }
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            thread::sleep(whole.mul_f64(random.below(1000) as f64 / 1000.0));
            child.kill().unwrap();
            killed += usize::from(!child.wait().unwrap().success());
            match fs::read(sandbox.path("m.tar")) {
                Ok(found) => assert!(found == archive, "a partial archive"),
                Err(error) => {
                    assert!(!force, "the old archive is gone");
                    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
                }
            }
        }
    }
    assert!(killed > 0);
    // Whatever is left does not stop the next run, nor does it get packed.
    pack(&sandbox, &["--force"]).ok();
    assert!(fs::read(sandbox.path("m.tar")).unwrap() == archive);
    sandbox.accepts(&archive, &files);
}

/// The archive is the old one or the new one, never something between.
#[test]
fn k9_add_layer_killed_at_any_moment() {
    let sandbox = Sandbox::new();
    let files = model(&sandbox);
    pack(&sandbox, &[]).ok();
    let old = fs::read(sandbox.path("m.tar")).unwrap();
    sandbox.write("more", noise(22, 2 << 20));
    let add = ["add-layer", "m.tar", "more"];
    let start = Instant::now();
    sandbox.run_bounded(&add).ok();
    let whole = start.elapsed();
    let new = fs::read(sandbox.path("m.tar")).unwrap();
    let mut random = Random(99);
    for _ in 0..15 {
        sandbox.write("m.tar", &old);
        let mut command = sandbox.command(&add);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        thread::sleep(whole.mul_f64(random.below(1000) as f64 / 1000.0));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = fs::read(sandbox.path("m.tar")).unwrap();
        assert!(found == old || found == new, "a partial archive");
    }
    let mut expected = files.clone();
    expected.push(("more", noise(22, 2 << 20)));
    sandbox.accepts(new, &expected);
}

/// Sends a signal once a command is at work; it ends by that signal, leaving what was there.
#[track_caller]
fn interrupt(sandbox: &Sandbox, mut command: Command, signal: Signal, named: bool) {
    let before = sandbox.names();
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    let at_work = || match named {
        true => sandbox.names().iter().any(|name| name.ends_with(".tmp")),
        false => start.elapsed() > Duration::from_millis(300),
    };
    while !at_work() {
        assert!(start.elapsed() < Duration::from_secs(10));
        assert!(child.try_wait().unwrap().is_none(), "ended early");
        thread::sleep(Duration::from_millis(2));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, signal).unwrap();
    let start = Instant::now();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(signal.as_raw()));
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(sandbox.names(), before);
}

/// A model that takes long to pack, and an archive to add to.
fn long_model() -> Sandbox {
    let sandbox = Sandbox::new();
    model(&sandbox);
    pack(&sandbox, &[]).ok();
    fs::rename(sandbox.path("m.tar"), sandbox.path("old.tar")).unwrap();
    let long = File::create(sandbox.path("model/long")).unwrap();
    long.set_len(1 << 36).unwrap();
    sandbox
}

const ADD: [&str; 3] = ["add-layer", "old.tar", "model/long"];

#[test]
fn k9_interrupted() {
    let sandbox = long_model();
    let old = fs::read(sandbox.path("old.tar")).unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        for args in [&PACK[..], &ADD] {
            interrupt(&sandbox, sandbox.command(args), signal, false);
        }
    }
    assert!(fs::read(sandbox.path("old.tar")).unwrap() == old);
}

/// Where a file cannot be without a name, which is forced by taking /proc away.
#[test]
fn k9_interrupted_with_a_temporary_name() {
    if !needs_root("take /proc away") {
        return;
    }
    let hide = "mount -t tmpfs none /proc";
    let probe = Command::new("unshare")
        .args(["--mount", "sh", "-c", hide])
        .stderr(Stdio::null())
        .status();
    let possible = probe.is_ok_and(|status| status.success());
    if !available("the right to make a mount namespace", possible) {
        return;
    }
    let sandbox = long_model();
    let old = fs::read(sandbox.path("old.tar")).unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        for args in [&PACK[..], &ADD] {
            let mut command = Command::new("unshare");
            command
                .args(["--mount", "sh", "-c"])
                .arg(format!("{hide} && exec \"$0\" \"$@\""))
                .arg(env!("CARGO_BIN_EXE_modeloci"))
                .args(args)
                .current_dir(sandbox.root());
            interrupt(&sandbox, command, signal, true);
        }
    }
    assert!(fs::read(sandbox.path("old.tar")).unwrap() == old);
}
