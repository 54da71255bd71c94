//! The environment that a slot's attempts run in: namespaces or none, privileges given up, Landlock rules prepared.

use super::engine;
use super::freezer::Freezer;
use super::{os, supervise, view};
use crate::landlock::{self, Access, Ruleset};
use crate::seccomp::{self, Rules, Sockets};
use crate::user::TaskUser;
use crate::wire::Setup;
use crate::{Priority, Report, Sandbox, Weakness};
use hedge_model::spec::Network;
use rustix::fs::{Mode, OFlags};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The user that tasks of a root worker see themselves as: `nobody` nearly everywhere. As root, programs would try what
/// only root can do (`tar` gives files away) and fail.
const NOBODY: u32 = 65534;

/// The environment of a slot: what was set up, and what the engine needs to start attempts in it.
pub(crate) struct SlotEnvironment {
    pub setup: Setup,
    pub report: Report,
    /// The control group that stops attempts as a whole, where one can be made.
    pub freezer: Option<Rc<Freezer>>,
    /// Becomes readable when a child ends.
    pub signals: OwnedFd,
    pub slot: Slot,
    /// The user that attempts run as, by this process's numbers; none for this process's own.
    pub user: Option<TaskUser>,
}

/// The folders of the slot, and the rules for the attempts in it.
pub(crate) struct Slot {
    /// What holds the others; it need not be in the view.
    pub folder: OwnedFd,
    pub work: OwnedFd,
    pub ruleset: Option<OwnedFd>,
    pub work_path: String,
    pub tmp_path: String,
}

impl Slot {
    /// Opens the slot's folders. Its ruleset serves all attempts that are ever run there: making it anew took
    /// 20 µs each time.
    fn open(setup: &Setup, sandbox: Sandbox, folder: OwnedFd) -> Result<Slot, String> {
        let open = |name: &str| {
            let path = setup.folder.join(name);
            let fd = open_folder(&path)?;
            let path = path
                .to_str()
                .ok_or("the task's folder has a name that is not UTF-8")?;
            Ok::<_, String>((fd, path.to_owned()))
        };
        let (work, work_path) = open(crate::scratch::WORK)?;
        let (tmp, tmp_path) = open(crate::scratch::TMP)?;
        let ruleset = match sandbox {
            Sandbox::None | Sandbox::View { landlock: 0 } => None,
            Sandbox::View { landlock: abi } | Sandbox::Landlock { abi } => {
                let made = ruleset(setup, sandbox, abi, &work, &tmp);
                Some(made.map_err(|error| {
                    format!("cannot make the rules that keep the task in its folder: {error}")
                })?)
            }
        };
        Ok(Slot {
            folder,
            work,
            ruleset,
            work_path,
            tmp_path,
        })
    }
}

fn open_folder(path: &Path) -> Result<OwnedFd, String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| format!("cannot open the task's folder {}: {error}", path.display()))
}

fn ruleset(
    setup: &Setup,
    sandbox: Sandbox,
    abi: u32,
    work: &OwnedFd,
    tmp: &OwnedFd,
) -> std::io::Result<OwnedFd> {
    let mut ruleset = Ruleset::new(abi, setup.has_tcp(matches!(sandbox, Sandbox::View { .. })))?;
    for (path, access) in wanted(setup, sandbox) {
        // Paths that do not exist are left out.
        if let Some((fd, is_folder)) = open_path(&path) {
            ruleset.allow(fd.as_fd(), is_folder, access)?;
            // A file of `/proc` that nobody holds open may become another the next time.
            std::mem::forget(fd);
        }
    }
    ruleset.allow(work.as_fd(), true, Access::All)?;
    ruleset.allow(tmp.as_fd(), true, Access::All)?;
    Ok(ruleset.into_fd())
}

impl SlotEnvironment {
    /// The folders that attempts may read, links followed, where this process sees more than they do.
    pub(crate) fn shown(&self) -> Option<Vec<PathBuf>> {
        let real = |path: PathBuf| std::fs::canonicalize(path).ok();
        let landlock = matches!(self.report.sandbox, Sandbox::Landlock { .. });
        landlock.then(|| {
            view::readable(&self.setup)
                .into_iter()
                .filter_map(real)
                .collect()
        })
    }

    fn new(
        setup: Setup,
        sandbox: Sandbox,
        reduced: Option<String>,
        freezer: Option<Rc<Freezer>>,
        folder: OwnedFd,
        users: Users,
    ) -> Result<SlotEnvironment, String> {
        let refused = |what: &str, error: std::io::Error| format!("{what}: {error}");
        let confined = sandbox != Sandbox::None;
        let slot = Slot::open(&setup, sandbox, folder)?;
        if confined {
            let shared = matches!(sandbox, Sandbox::Landlock { .. }) && users.inside.is_none();
            os::bound(setup.processes_max, shared).map_err(|error| refused("limits", error))?;
        }
        let signals = os::signals_of_children().map_err(|error| refused("signals", error))?;
        let rules = confined.then(|| rules(&setup, sandbox, freezer.is_some(), users.inside));
        rules
            .map_or(Ok(()), |rules| restrict(rules, &setup.folder))
            .map_err(|error| refused("a filter of system calls", error))?;
        if confined {
            // SAFETY: sets a property of this process: tasks of the same user may not look into it.
            unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
        }
        let report = Report {
            sandbox,
            reduced,
            weaknesses: weaknesses(sandbox, &users),
            task_user: users.outside.map(|user| user.uid),
            processes_max: confined.then_some(setup.processes_max),
            network_cut: !setup.shares_network() && confined,
            freezer: freezer.is_some(),
            idle: setup.priority == Priority::Idle,
            autogroup: std::fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled")
                .is_ok_and(|text| text.trim() == "1"),
        };
        Ok(SlotEnvironment {
            setup,
            report,
            freezer,
            signals,
            slot,
            user: users.inside,
        })
    }
}

/// The user that attempts run as, by the machine's numbers and by those of the spawner's namespace.
#[derive(Clone)]
struct Users {
    outside: Option<TaskUser>,
    inside: Option<TaskUser>,
    /// The worker is the machine's root.
    root: bool,
    /// A folder that only its owner may enter, so that attempts have to run as him.
    closed: Option<PathBuf>,
}

fn rules(setup: &Setup, sandbox: Sandbox, freezer: bool, user: Option<TaskUser>) -> Rules {
    let (view, abi) = match sandbox {
        Sandbox::View { landlock } => (true, landlock),
        Sandbox::Landlock { abi } => (false, abi),
        Sandbox::None => (false, 0),
    };
    let sockets = match (view, setup.shares_network()) {
        // With the machine's network come its abstract Unix sockets, which only newer kernels keep away.
        (true, true) if abi < landlock::ABI_SCOPES => Sockets::Internet,
        (true, _) => Sockets::All,
        (false, true) => Sockets::Internet,
        (false, false) => Sockets::None,
    };
    Rules {
        sockets,
        clone3: freezer,
        spared: Vec::new(),
        supervised: !view && user.is_none(),
    }
}

/// Restricts this thread and with it all attempts. Where calls are to be checked, another thread does that, which is
/// started before and not restricted.
fn restrict(mut rules: Rules, folder: &Path) -> std::io::Result<()> {
    rules.spared.push(std::process::id());
    if !rules.supervised {
        return seccomp::restrict(&rules).map(drop);
    }
    let supervisor = supervise::start(folder)?;
    rules.spared.push(supervisor.thread);
    if let Some(asked) = seccomp::restrict(&rules)? {
        supervisor.watch(asked)?;
    }
    Ok(())
}

/// What this sandbox does not keep from tasks, of what the project promises.
fn weaknesses(sandbox: Sandbox, users: &Users) -> Vec<Weakness> {
    let mut found = Vec::new();
    if matches!(sandbox, Sandbox::Landlock { .. }) {
        found.extend([Weakness::Names, Weakness::Processes]);
        if users.outside.is_none() && !users.root {
            found.push(Weakness::SameUser);
        }
    }
    if sandbox != Sandbox::None && users.outside.is_none() && users.root {
        let closed = users.closed.clone();
        found.push(Weakness::Root { closed });
    }
    found
}

/// Forks a spawner that is pid 1 of its own namespaces and sees only what attempts may see.
pub(crate) fn fork_into_namespaces(
    setup: &Setup,
    socket: &UnixStream,
    freezer: Option<Rc<Freezer>>,
    user: Option<TaskUser>,
) -> Result<i32, String> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() {
        set_groups(setup);
    }
    let mut flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    if !setup.shares_network() {
        flags |= libc::CLONE_NEWNET;
    }
    let inside = user.map(|_| TaskUser {
        uid: NOBODY,
        gid: NOBODY,
    });
    let map = |own: u32, task: Option<u32>| match task {
        Some(task) => format!("0 0 1\n{NOBODY} {task} 1\n"),
        None if own == 0 => format!("{NOBODY} 0 1\n"),
        None => format!("{own} {own} 1\n"),
    };
    let maps = [
        map(uid.as_raw(), user.map(|user| user.uid)),
        map(gid.as_raw(), user.map(|user| user.gid)),
    ];
    let users = Users {
        outside: user,
        inside,
        root: os::is_machines_root(),
        closed: None,
    };
    fork(flags, socket, Some((maps, user.is_none())), || {
        let refused = |what: &str, error: std::io::Error| format!("{what}: {error}");
        die_with_parent();
        let folder = open_folder(&setup.folder)?;
        view::enter(setup, uid.is_root() && user.is_none())?;
        if setup.network == Network::Loopback {
            view::raise_loopback().map_err(|error| refused("loopback", error))?;
        }
        // Without namespaces of their own tasks reach less of the kernel.
        let most = "/proc/sys/user/max_user_namespaces";
        std::fs::write(most, "0").map_err(|error| refused(most, error))?;
        view::seal().map_err(|error| refused("sealing the view", error))?;
        give_up_privileges()?;
        let landlock = landlock::abi();
        SlotEnvironment::new(
            setup.clone(),
            Sandbox::View { landlock },
            None,
            freezer,
            folder,
            users,
        )
    })
}

/// Forks a spawner in the worker's own namespaces. With a sandbox asked for, Landlock and a filter of
/// system calls have to do. Attempts run as `user`, or as this one where a folder is `closed` to others.
pub(crate) fn fork_plain(
    setup: &Setup,
    socket: &UnixStream,
    reduced: Option<String>,
    freezer: Option<Rc<Freezer>>,
    (user, closed): (Option<TaskUser>, Option<PathBuf>),
) -> Result<i32, String> {
    fork(0, socket, None, || {
        die_with_parent();
        let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
        let folder = open_folder(&setup.folder)?;
        let users = Users {
            outside: user,
            inside: user,
            root: os::is_machines_root(),
            closed,
        };
        if !setup.permissions.mounts.is_empty() {
            let why = reduced.unwrap_or_else(|| "there is no sandbox".to_owned());
            return Err(format!(
                "trees are shown in a view of their own alone: {why}"
            ));
        }
        if !setup.sandbox {
            let setup = setup.clone();
            return SlotEnvironment::new(setup, Sandbox::None, reduced, freezer, folder, users);
        }
        let why = reduced.unwrap_or_default();
        let abi = landlock::abi();
        if abi < landlock::ABI_MIN {
            return Err(format!(
                "namespaces are refused ({why}), and Landlock is too old or switched off (ABI {abi}, {} is needed)",
                landlock::ABI_MIN
            ));
        }
        if rustix::process::geteuid().is_root() {
            set_groups(setup);
        }
        give_up_privileges()?;
        let sandbox = Sandbox::Landlock { abi };
        SlotEnvironment::new(
            setup.clone(),
            sandbox,
            Some(why.clone()),
            freezer,
            folder,
            users,
        )
        .map_err(|error| format!("namespaces are refused ({why}), and so is {error}"))
    })
}

/// Forks, prepares in the child, and returns once that has succeeded; the child then serves `socket` and
/// never returns. `maps` are those of users and groups of a new user namespace, and whether groups may not be set.
fn fork(
    flags: i32,
    socket: &UnixStream,
    maps: Option<([String; 2], bool)>,
    prepare: impl FnOnce() -> Result<SlotEnvironment, String>,
) -> Result<i32, String> {
    let refused = |error: std::io::Error| error.to_string();
    let (mut heard, said) = std::io::pipe().map_err(refused)?;
    let (mut mapped, mut go) = std::io::pipe().map_err(refused)?;
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
            drop((heard, go));
            let mapped = mapped.read_exact(&mut [0]).map_err(refused);
            let environment = match mapped.and_then(|()| prepare()) {
                Ok(environment) => environment,
                Err(why) => {
                    let _ = { said }.write_all(why.as_bytes());
                    std::process::exit(1);
                }
            };
            drop(said);
            let code = match socket.try_clone() {
                Ok(socket) => engine::serve(environment, socket),
                Err(_) => 1,
            };
            std::process::exit(code)
        }
        pid if pid > 0 => {
            drop((said, mapped));
            let mut why = match maps.map_or(Ok(()), |(maps, deny)| write_maps(pid, &maps, deny)) {
                Ok(()) => {
                    let _ = go.write_all(&[1]);
                    String::new()
                }
                Err(why) => why,
            };
            drop(go);
            let _ = if why.is_empty() {
                heard.read_to_string(&mut why)
            } else {
                heard.read_to_end(&mut Vec::new())
            };
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

/// Writes the user and group maps of a child's namespace. From outside, because only there more than one user can be
/// mapped.
fn write_maps(pid: libc::c_long, maps: &[String; 2], deny: bool) -> Result<(), String> {
    let deny = deny.then_some(("setgroups", "deny"));
    let maps = [("uid_map", maps[0].as_str()), ("gid_map", &maps[1])];
    for (name, text) in deny.into_iter().chain(maps) {
        let path = format!("/proc/{pid}/{name}");
        std::fs::write(&path, text).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

/// Leaves the groups of the administrator, and joins those that the devices of the attempts belong to.
fn set_groups(setup: &Setup) {
    use std::os::unix::fs::MetadataExt;
    let devices = setup.permissions.devices.iter();
    let abouts = devices.filter_map(|path| std::fs::metadata(path).ok());
    let groups = abouts.filter(|about| about.mode() & 0o006 != 0o006 && about.gid() != 0);
    let mut groups: Vec<u32> = groups.map(|about| about.gid()).collect();
    groups.sort_unstable();
    groups.dedup();
    // SAFETY: the list is valid for the call.
    unsafe { libc::setgroups(groups.len(), groups.as_ptr()) };
}

fn die_with_parent() {
    // SAFETY: sets a property of this process.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Keeps everything that this process starts from gaining privileges. The process keeps its own over its namespaces.
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

/// What every attempt may read and use.
fn wanted(setup: &Setup, sandbox: Sandbox) -> Vec<(PathBuf, Access)> {
    let read = |path| (path, Access::Read);
    let mut wanted: Vec<(PathBuf, Access)> = view::readable(setup).into_iter().map(read).collect();
    let devices = view::DEVICES.iter();
    wanted.extend(devices.map(|path| (path.into(), Access::Device)));
    let devices = setup.permissions.devices.iter();
    wanted.extend(devices.map(|path| (path.clone(), Access::Device)));
    let shares = setup.permissions.shares.iter();
    wanted.extend(shares.map(|share| match share.writable {
        true => (share.path.clone(), Access::All),
        false => (share.path.clone(), Access::Read),
    }));
    if matches!(sandbox, Sandbox::View { .. }) {
        let mounts = setup.permissions.mounts.iter();
        wanted.extend(mounts.map(|mount| read(mount.at.clone())));
        wanted.push(("/proc".into(), Access::Read));
        wanted.push((view::SHARED_MEMORY.into(), Access::All));
    } else {
        // Not the folders of processes: command lines may hold secrets.
        let open = view::PROC_OPEN.iter();
        wanted.extend(open.map(|path| (path.into(), Access::Read)));
    }
    wanted
}

fn open_path(path: &Path) -> Option<(OwnedFd, bool)> {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mode = rustix::fs::fstat(&fd).ok()?.st_mode;
    debug_assert!(fd.as_raw_fd() > 2);
    Some((fd, rustix::fs::FileType::from_raw_mode(mode).is_dir()))
}
