//! The thread that starts attempts.
//!
//! It has what attempts are to have: the filter of system calls, and the user that they run as. The kernel keeps
//! both for each thread, so that the spawner's main thread stays able to watch over attempts, and a start costs no
//! more than waking this thread.

use super::child::{Cloner, Command, Failure, Step};
use super::tree::{self, Children, LastPid};
use crate::seccomp::{self, Rules};
use crate::user::TaskUser;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// The main thread's end.
pub(crate) struct Launcher {
    orders: SyncSender<Order>,
    results: Receiver<Result<i32, Failure>>,
    /// Whether the kernel lets the thread alone change the priority of attempts, because they have its user. Otherwise
    /// the main thread does, whose calls are not filtered.
    has_user: bool,
    children: Children,
    youngest: LastPid,
    /// On which the kernel asks about supervised calls.
    pub asked: Option<OwnedFd>,
}

/// What the thread is to do. The main thread waits for the result, so that a command outlives its start.
enum Order {
    /// To start a command, with idle priority or that of the spawner.
    Start(*const Command<'static>, bool),
    /// To give idle priority to all that was started.
    Lower,
}

// SAFETY: the pointer is used only while the thread that sent it waits.
unsafe impl Send for Order {}

impl Launcher {
    /// Starts the thread. Without `rules` attempts are not filtered; with `user` they run as that user.
    pub(crate) fn start(rules: Option<Rules>, user: Option<TaskUser>) -> io::Result<Launcher> {
        let (orders, waiting) = sync_channel::<Order>(1);
        let (said, results) = sync_channel(1);
        let (ready, made) = sync_channel(1);
        std::thread::Builder::new().spawn(move || {
            let cloner = prepare(rules, user).and_then(|asked| Ok((asked, Cloner::new()?)));
            let mut cloner = match cloner {
                Ok((asked, cloner)) => {
                    let _ = ready.send(Ok(asked));
                    cloner
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let (children, youngest) = (Children::open(), LastPid::open());
            while let Ok(order) = waiting.recv() {
                let result = match order {
                    Order::Start(command, idle) => {
                        // SAFETY: the sender keeps the command until it hears the result.
                        let started = cloner.start(unsafe { &*command });
                        // Only now: a child at low priority could keep the spawner waiting for its exec.
                        started.inspect(|pid| {
                            if idle {
                                tree::make_idle(*pid, &children, &youngest);
                            }
                        })
                    }
                    Order::Lower => {
                        tree::make_all_idle(&children);
                        Ok(0)
                    }
                };
                if said.send(result).is_err() {
                    return;
                }
            }
        })?;
        let asked = made
            .recv()
            .map_err(|_| io::Error::other("the thread that starts attempts ended"))??;
        Ok(Launcher {
            orders,
            results,
            has_user: user.is_some(),
            children: Children::open(),
            youngest: LastPid::open(),
            asked,
        })
    }

    /// Starts the command, with idle priority if it is to have that; returns its process id once it is executing.
    pub(crate) fn launch(&self, command: &Command<'_>, idle: bool) -> Result<i32, Failure> {
        let command = std::ptr::from_ref(command).cast();
        let started = self.order(Order::Start(command, idle && self.has_user));
        started.inspect(|pid| {
            if idle && !self.has_user {
                tree::make_idle(*pid, &self.children, &self.youngest);
            }
        })
    }

    /// Gives idle priority to all processes below the spawner.
    pub(crate) fn lower(&self) {
        if self.has_user {
            // Without the thread nothing is started any more either.
            let _ = self.order(Order::Lower);
        } else {
            tree::make_all_idle(&self.children);
        }
    }

    fn order(&self, order: Order) -> Result<i32, Failure> {
        let gone = Failure {
            step: Step::Clone,
            errno: libc::ESRCH,
        };
        self.orders.send(order).map_err(|_| gone)?;
        self.results.recv().map_err(|_| gone)?
    }
}

/// Makes this thread what attempts are to be.
fn prepare(rules: Option<Rules>, user: Option<TaskUser>) -> io::Result<Option<OwnedFd>> {
    if let Some(user) = user {
        let own = rustix::process::geteuid().as_raw();
        // By the system calls themselves: the C library's functions would change all threads. The saved id and that
        // for files stay the spawner's, because the kernel asks who may write to a control group when a process
        // starts in it; a process gives both up before it executes.
        // SAFETY: changes this thread's ids alone.
        let done = unsafe {
            libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) == 0
                && libc::syscall(libc::SYS_setresgid, user.gid, user.gid, user.gid) == 0
                && libc::syscall(libc::SYS_setresuid, user.uid, user.uid, own) == 0
                && libc::syscall(libc::SYS_setfsuid, own) >= 0
        };
        if !done {
            return Err(io::Error::last_os_error());
        }
    }
    match rules {
        None => Ok(None),
        Some(mut rules) => {
            // SAFETY: only returns numbers.
            let own = unsafe { [libc::getpid(), libc::gettid()] };
            rules.spared.extend(own.map(|thread| thread as u32));
            seccomp::restrict(&rules)
        }
    }
}
