//! Where attempts run: namespaces or none, privileges given up, Landlock rules prepared.

use super::engine;
use super::freezer::Freezer;
use super::view;
use crate::landlock::{self, Access, Ruleset};
use crate::seccomp::{self, Filter};
use crate::shortage::worker_ending;
use crate::wire::Setup;
use crate::{Priority, Report, Sandbox};
use hedge_model::Ending;
use rustix::fs::{Mode, OFlags};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// `keyctl`: gives the caller a session keyring of its own; from `linux/keyctl.h`.
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;

/// Everything the engine needs to know about the place it runs in.
pub(crate) struct Ground {
    pub setup: Setup,
    pub report: Report,
    /// Where attempts are stopped as a whole, if that can be.
    pub freezer: Option<Rc<Freezer>>,
    /// What the rules of every attempt allow, besides its own folders.
    rules: Vec<(OwnedFd, bool, Access)>,
    landlock: u32,
}

/// The folders of one scratch slot, and the rules for the attempts in it.
pub(crate) struct Slot {
    pub work: OwnedFd,
    pub ruleset: Option<OwnedFd>,
    pub work_path: String,
    pub tmp_path: String,
}

impl Ground {
    /// Opens a slot's folders. Its ruleset serves all attempts that are ever run there: making it anew
    /// took 20 µs each time.
    pub(crate) fn open_slot(&self, slot: u32) -> Result<Slot, Ending> {
        let folder = self.setup.scratch.join(crate::scratch::slot_name(slot));
        let open = |name: &str| {
            let path = folder.join(name);
            let fd = rustix::fs::open(
                &path,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|error| {
                worker_ending(format!("open the task's folder {path:?}"), &error.into())
            })?;
            let path = path
                .to_str()
                .ok_or_else(|| Ending::worker("its scratch folder's name is not UTF-8"))?;
            Ok::<_, Ending>((fd, path.to_owned()))
        };
        let (work, work_path) = open(crate::scratch::WORK)?;
        let (tmp, tmp_path) = open(crate::scratch::TMP)?;
        let ruleset = match self.landlock {
            0 => None,
            abi => Some(self.ruleset(abi, &work, &tmp).map_err(|error| {
                worker_ending("make the rules that keep the task in its folder", &error)
            })?),
        };
        Ok(Slot {
            work,
            ruleset,
            work_path,
            tmp_path,
        })
    }

    fn ruleset(&self, abi: u32, work: &OwnedFd, tmp: &OwnedFd) -> std::io::Result<OwnedFd> {
        let mut ruleset = Ruleset::new(abi, self.setup.network)?;
        for (fd, is_folder, access) in &self.rules {
            ruleset.allow(fd.as_fd(), *is_folder, *access)?;
        }
        ruleset.allow(work.as_fd(), true, Access::All)?;
        ruleset.allow(tmp.as_fd(), true, Access::All)?;
        Ok(ruleset.into_fd())
    }

    fn new(
        setup: Setup,
        sandbox: Sandbox,
        reduced: Option<String>,
        freezer: Option<Rc<Freezer>>,
    ) -> Ground {
        let landlock = match sandbox {
            Sandbox::View { landlock } => landlock,
            Sandbox::Landlock { abi } => abi,
            Sandbox::None => 0,
        };
        let rules = if landlock == 0 {
            Vec::new()
        } else {
            rules(&setup, &sandbox)
        };
        let report = Report {
            sandbox,
            reduced,
            network_cut: !setup.network && sandbox != Sandbox::None,
            // SAFETY: gives this process a copy of its UTS namespace, which changes nothing it sees.
            marked: unsafe { libc::unshare(libc::CLONE_NEWUTS) } == 0,
            freezer: freezer.is_some(),
            idle: setup.priority == Priority::Idle,
            autogroup: std::fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled")
                .is_ok_and(|text| text.trim() == "1"),
        };
        Ground {
            setup,
            report,
            freezer,
            rules,
            landlock,
        }
    }
}

/// Forks a spawner that is pid 1 of its own namespaces and sees only what attempts may see.
pub(crate) fn fork_into_namespaces(
    setup: &Setup,
    socket: &UnixStream,
    freezer: Option<Rc<Freezer>>,
) -> Result<i32, String> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() {
        // SAFETY: an empty list; groups of an administrator are no business of tasks.
        unsafe { libc::setgroups(0, std::ptr::null()) };
    }
    let mut flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    if !setup.network {
        flags |= libc::CLONE_NEWNET;
    }
    fork(flags, socket, || {
        let refused = |what: &str, error: std::io::Error| format!("{what}: {error}");
        let write = |path: &str, text: String| {
            std::fs::write(path, text).map_err(|error| refused(path, error))
        };
        write("/proc/self/setgroups", "deny".to_owned())?;
        // A worker that is root must not look like root to its tasks: programs would try what only root
        // can do (`tar` gives files away) and fail. 65534 is `nobody` nearly everywhere.
        let inside = |id: u32| if id == 0 { 65534 } else { id };
        write(
            "/proc/self/uid_map",
            format!("{} {} 1", inside(uid.as_raw()), uid.as_raw()),
        )?;
        write(
            "/proc/self/gid_map",
            format!("{} {} 1", inside(gid.as_raw()), gid.as_raw()),
        )?;
        die_with_parent();
        view::enter(setup, uid.is_root())?;
        if !setup.network {
            view::raise_loopback().map_err(|error| refused("loopback", error))?;
        }
        // Without namespaces of their own tasks can neither shed their mark nor reach much of the kernel.
        write("/proc/sys/user/max_user_namespaces", "0".to_owned())?;
        view::seal().map_err(|error| refused("sealing the view", error))?;
        give_up_privileges()?;
        filter_calls(setup, &[std::process::id()], false)?;
        Ok(Ground::new(
            setup.clone(),
            Sandbox::View {
                landlock: landlock::abi(),
            },
            None,
            freezer,
        ))
    })
}

/// Forks a spawner in the worker's own namespaces. With a sandbox asked for, Landlock and a filter of
/// system calls have to do.
pub(crate) fn fork_plain(
    setup: &Setup,
    socket: &UnixStream,
    reduced: Option<String>,
    freezer: Option<Rc<Freezer>>,
) -> Result<i32, String> {
    let watcher = std::process::id();
    fork(0, socket, || {
        die_with_parent();
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        if !setup.sandbox {
            return Ok(Ground::new(setup.clone(), Sandbox::None, reduced, freezer));
        }
        let why = reduced.unwrap_or_else(|| "namespaces are switched off".to_owned());
        let abi = landlock::abi();
        if abi < landlock::ABI_MIN {
            return Err(format!(
                "namespaces are refused ({why}), and Landlock is too old or switched off (ABI {abi}, {} is needed)",
                landlock::ABI_MIN
            ));
        }
        if rustix::process::geteuid().is_root() {
            // SAFETY: an empty list.
            unsafe { libc::setgroups(0, std::ptr::null()) };
        }
        give_up_privileges()?;
        let protect = [setup.worker, watcher, std::process::id()];
        filter_calls(setup, &protect, true)
            .map_err(|error| format!("namespaces are refused ({why}), and {error}"))?;
        Ok(Ground::new(
            setup.clone(),
            Sandbox::Landlock { abi },
            Some(why),
            freezer,
        ))
    })
}

/// Forks, prepares in the child, and returns once that has succeeded; the child then serves `socket` and
/// never returns.
fn fork(
    flags: i32,
    socket: &UnixStream,
    prepare: impl FnOnce() -> Result<Ground, String>,
) -> Result<i32, String> {
    let refused = |error: std::io::Error| error.to_string();
    let (mut heard, said) = std::io::pipe().map_err(refused)?;
    // SAFETY: like `fork`: this process has one thread and holds no lock; without CLONE_VM the child has
    // memory of its own.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            (flags | libc::SIGCHLD) as libc::c_long,
            0,
            0,
            0,
            0,
        )
    };
    match pid {
        0 => {
            drop(heard);
            let ground = match prepare() {
                Ok(ground) => ground,
                Err(why) => {
                    let _ = std::io::Write::write_all(&mut { said }, why.as_bytes());
                    std::process::exit(1);
                }
            };
            drop(said);
            let code = match socket.try_clone() {
                Ok(socket) => engine::serve(ground, socket),
                Err(_) => 1,
            };
            std::process::exit(code)
        }
        pid if pid > 0 => {
            drop(said);
            let mut why = String::new();
            let _ = heard.read_to_string(&mut why);
            if why.is_empty() {
                return Ok(pid as i32);
            }
            // SAFETY: reaps that child, which has ended.
            unsafe { libc::waitpid(pid as i32, std::ptr::null_mut(), 0) };
            Err(why)
        }
        _ => Err(format!("clone: {}", std::io::Error::last_os_error())),
    }
}

fn die_with_parent() {
    // SAFETY: sets a property of this process.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// What this process starts can never gain a privilege. It keeps its own, over its own namespaces.
fn give_up_privileges() -> Result<(), String> {
    // SAFETY: sets properties of this process.
    unsafe {
        for capability in 0..64 {
            if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 {
                break;
            }
        }
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(format!("no_new_privs: {}", std::io::Error::last_os_error()));
        }
    }
    Ok(())
}

/// From now on this process and what it starts make no system calls that tasks are not to make, and have no keys of
/// the worker's owner.
fn filter_calls(setup: &Setup, protect: &[u32], instead_of_namespaces: bool) -> Result<(), String> {
    // SAFETY: gives this process a new, empty session keyring; a kernel without keyrings has none to give away.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0) };
    let filter = Filter {
        protect,
        instead_of_namespaces,
        network: setup.network,
    };
    seccomp::restrict(filter)
        .map_err(|error| format!("a filter of system calls is refused: {error}"))
}

/// What every attempt may read and use. Paths that do not exist are left out.
fn rules(setup: &Setup, sandbox: &Sandbox) -> Vec<(OwnedFd, bool, Access)> {
    let mut wanted: Vec<(PathBuf, Access)> = Vec::new();
    wanted.extend(
        view::readable(setup)
            .into_iter()
            .map(|path| (path, Access::Read)),
    );
    wanted.push(("/proc".into(), Access::Read));
    wanted.extend(
        view::DEVICES
            .iter()
            .map(|path| (path.into(), Access::Device)),
    );
    if matches!(sandbox, Sandbox::View { .. }) {
        wanted.push((view::SHARED_MEMORY.into(), Access::All));
    }
    wanted
        .into_iter()
        .filter_map(|(path, access)| open_path(&path).map(|(fd, folder)| (fd, folder, access)))
        .collect()
}

fn open_path(path: &Path) -> Option<(OwnedFd, bool)> {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mode = rustix::fs::fstat(&fd).ok()?.st_mode;
    debug_assert!(fd.as_raw_fd() > 2);
    Some((fd, rustix::fs::FileType::from_raw_mode(mode).is_dir()))
}
