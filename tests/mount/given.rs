//! `/dev/fd/N`: connections that somebody else has mounted.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use modeloci::mount::MountOptions;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::harness::{BINARY, Run, Scene, Server, kill, lives, needs_root, until};
use crate::starting::with_descriptor;

/// The number under which a program finds the connection.
const NUMBER: i32 = 9;
const MOUNT_POINT: &str = "/dev/fd/9";

/// What a starter with rights has made: a mount that waits for somebody to serve it.
struct Given {
    path: PathBuf,
    connection: Option<OwnedFd>,
}

impl Given {
    fn new(scene: &Scene) -> Option<Given> {
        if !needs_root("mount(2) a connection") {
            return None;
        }
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = OwnedFd::from(device.unwrap());
        let data = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions",
            device.as_raw_fd()
        );
        let path = scene.path("mnt");
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        let data = CString::new(data).unwrap();
        rustix::mount::mount("fuse", &path, "fuse", flags, data.as_c_str()).unwrap();
        Some(Given {
            path,
            connection: Some(device),
        })
    }

    /// A command that gets the connection, which nobody else keeps once it is started.
    fn command(&self, scene: &Scene, options: &[&str]) -> Command {
        let mut command = scene.command(&["mount", "--no-index", "m.tar", MOUNT_POINT]);
        command.args(options);
        with_descriptor(&mut command, self.connection.as_ref().unwrap(), NUMBER);
        command
    }

    fn serve(&mut self, scene: &Scene, options: &[&str]) -> Server {
        let mut command = self.command(scene, options);
        command.arg("--foreground").stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        drop((command, self.connection.take()));
        let server = Server::of(child, self.path.clone());
        until("it answers", || fs::read_dir(&self.path).is_ok());
        server
    }

    fn status(&self) -> Run {
        let mut status = Command::new(BINARY);
        Run::of(status.arg("status").arg("--json").arg(&self.path))
    }
}

impl Given {
    fn unmount(&self) {
        // Whoever looks at the mount just now makes it busy.
        until("it is unmounted", || {
            match rustix::mount::unmount(&self.path, UnmountFlags::empty()) {
                Err(rustix::io::Errno::BUSY) => false,
                done => done.map(|()| true).unwrap(),
            }
        });
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
    }
}

fn reads_all(scene: &Scene, path: &Path) {
    for (name, bytes) in &scene.files {
        assert!(&fs::read(path.join(name)).unwrap() == bytes, "{name}");
    }
}

#[test]
fn m11_a_connection_that_somebody_else_has_mounted_is_served() {
    for options in [&[][..], &["--no-sandbox"]] {
        let scene = Scene::new();
        let Some(mut given) = Given::new(&scene) else {
            return;
        };
        let mut server = given.serve(&scene, options);
        reads_all(&scene, &given.path);
        let status: serde_json::Value = given.status().ok().json();
        assert_eq!(status["mountpoint"], MOUNT_POINT);
        assert_eq!(status["pid"], server.child.id());
        // Nothing of the model is unmounted by those who have not mounted it.
        let umount = server.mount.umount(&[]);
        umount.refused(5, "is a mount of type fuse that another program has made");
        reads_all(&scene, &given.path);
        given.unmount();
        assert_eq!(server.wait().0, Some(0), "it ends with the mount");
    }
}

#[test]
fn m11_a_connection_is_served_in_the_background() {
    let scene = Scene::new();
    let Some(mut given) = Given::new(&scene) else {
        return;
    };
    let done = Run::of(&mut given.command(&scene, &[])).ok();
    assert_eq!(
        done.stderr, "",
        "no hint on what only whoever mounts can do"
    );
    drop(given.connection.take());
    reads_all(&scene, &given.path);
    let status: serde_json::Value = given.status().ok().json();
    let pid = status["pid"].as_i64().unwrap() as i32;
    given.unmount();
    until("the process ends", || !lives(pid));
}

#[test]
fn m11_a_signal_closes_the_connection() {
    for options in [&[][..], &["--no-sandbox"]] {
        let scene = Scene::new();
        let Some(mut given) = Given::new(&scene) else {
            return;
        };
        let mut server = given.serve(&scene, options);
        let file = File::open(given.path.join("weights.bin")).unwrap();
        server.signal(libc::SIGTERM);
        let (code, took) = server.wait();
        assert_eq!(code, Some(0));
        assert!(took.as_secs() < 4, "nobody is waited for: {took:?}");
        // What the kernel has cached it goes on to serve.
        let stat = rustix::fs::statfs(&given.path);
        assert_eq!(stat.err(), Some(Errno::NOTCONN), "it is closed");
        drop(file);
    }
}

#[test]
fn m11_of_a_server_that_is_killed_the_connection_ends() {
    let scene = Scene::new();
    let Some(mut given) = Given::new(&scene) else {
        return;
    };
    let mut server = given.serve(&scene, &[]);
    let status: serde_json::Value = given.status().ok().json();
    kill(status["server_pid"].as_i64().unwrap() as i32, libc::SIGKILL);
    assert_eq!(server.wait().0, Some(5));
    let stat = rustix::fs::statfs(&given.path);
    assert_eq!(stat.err(), Some(Errno::NOTCONN));
    given.status().refused(5, "its process is gone");
}

/// A connection and descriptors that are none, for root and for others.
#[test]
fn m11_what_is_no_connection_is_refused() {
    let scene = Scene::new();
    for (mountpoint, why) in [
        ("/dev/fd/250", "is not an open descriptor"),
        ("/proc/self/fd/250", "is not an open descriptor"),
        ("/dev/fd/99999999999", "is not the number of a descriptor"),
        ("/dev/fd/-1", "is not the number of a descriptor"),
        ("/dev/fd/0", "is neither a FUSE connection"),
    ] {
        for more in [
            &[][..],
            &["--foreground"],
            &["--foreground", "--no-sandbox"],
        ] {
            let args = [&["mount", "--no-index", "m.tar", mountpoint], more].concat();
            let text = format!("error: mount point {mountpoint}: {why}");
            scene.run(&args).refused(5, &text);
        }
    }
    let unmounted = File::options().read(true).write(true).open("/dev/fuse");
    let mut command = scene.command(&["mount", "--no-index", "m.tar", MOUNT_POINT]);
    with_descriptor(&mut command, unmounted.unwrap(), NUMBER);
    Run::of(&mut command).refused(5, "/dev/fd/9: is an open /dev/fuse that is not mounted");
    let archive = File::open(scene.path("m.tar")).unwrap();
    let mut command = scene.command(&["mount", "--no-index", "m.tar", MOUNT_POINT]);
    with_descriptor(&mut command, archive, NUMBER);
    Run::of(&mut command).refused(5, "/dev/fd/9: is neither a FUSE connection");
}

/// A directory may be named by a descriptor, too.
#[test]
fn m11_a_directory_that_is_given_as_a_descriptor_is_mounted_on() {
    let scene = Scene::new();
    let directory = File::open(scene.path("mnt")).unwrap();
    let mut command = scene.command(&["mount", "--no-index", "m.tar", MOUNT_POINT]);
    with_descriptor(&mut command, directory, NUMBER);
    Run::of(&mut command).ok();
    let mount = crate::harness::Mounted(scene.path("mnt"));
    reads_all(&scene, &mount.0);
    mount.unmount();
}

#[test]
fn m11_what_only_whoever_mounts_can_do_is_refused() {
    let scene = Scene::new();
    let Some(given) = Given::new(&scene) else {
        return;
    };
    for (options, why) in [
        (
            &["--allow-other"][..],
            "\"allow_other\": is for whoever mounts",
        ),
        (&["-o", "noexec"], "\"noexec\": is for whoever mounts"),
        (&["-o", "nonempty"], "\"nonempty\": is for whoever mounts"),
        (&["--prefetch"], "prefetch needs a mount"),
        (&["--foreground", "--allow-other"], "is for whoever mounts"),
        (
            &["--foreground", "--ready-fd", "9"],
            "--ready-fd is the descriptor of the mount",
        ),
    ] {
        Run::of(&mut given.command(&scene, options)).refused(2, why);
    }
}

#[test]
fn m11_a_connection_that_was_served_before_is_refused() {
    let scene = Scene::new();
    let Some(mut given) = Given::new(&scene) else {
        return;
    };
    let kept = given.connection.as_ref().unwrap().try_clone().unwrap();
    let mut server = given.serve(&scene, &[]);
    server.signal(libc::SIGTERM);
    assert_eq!(server.wait().0, Some(0));
    // It lives on as long as somebody has it.
    given.connection = Some(kept);
    Run::of(&mut given.command(&scene, &[])).refused(5, "was served before");
}

#[test]
fn m11_the_library_serves_a_connection_and_does_not_take_one_by_its_number() {
    let scene = Scene::new();
    let Some(mut given) = Given::new(&scene) else {
        return;
    };
    let connection = given.connection.take().unwrap();
    let mut options = MountOptions::new(
        scene.path("m.tar"),
        format!("/dev/fd/{}", connection.as_raw_fd()),
    );
    options.cache_bytes = 16 << 20;
    let error = modeloci::mount(&options).err().unwrap().to_string();
    assert!(
        error.contains("give it to mount::serve_connection"),
        "{error}"
    );

    options.mountpoint = given.path.clone();
    let mounted = modeloci::mount::serve_connection(connection, &options).unwrap();
    for (name, bytes) in &scene.files {
        let output = Command::new("cat").arg(given.path.join(name)).output();
        assert!(output.unwrap().stdout == *bytes, "{name}");
    }
    assert_eq!(mounted.mountpoint(), given.path);
    given.unmount();
    mounted.wait().unwrap();
}
