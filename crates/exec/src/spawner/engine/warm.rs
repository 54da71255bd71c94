//! Attempts that are forked from a template.

use super::start::{Beginning, NotNow, file_bytes_max};
use super::{CHANNEL, CONTROL, Engine};
use crate::Launch;
use crate::shortage::worker_ending;
use crate::spawner::attempt::{Attempt, Phase, Pipes, Prepared};
use crate::spawner::child::{Command, Failure, NotStarted, Starting};
use crate::spawner::template::{self, Key, Plan, Said, State, Template};
use crate::spawner::{attempt, tree};
use hedge_model::Ending;
use rustix::net::SocketType;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a template may take to make a process. It has only to fork, but at idle priority it waits for the processor.
const ASKED_MAX: Duration = Duration::from_secs(20);
/// How long a template stays without being asked for a process.
const UNUSED_MAX: Duration = Duration::from_secs(30);
/// Time between two looks at a template that is not asked for anything.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// What a template may use between two looks: it has only to wait.
const USED_MAX: Duration = Duration::from_millis(20);
/// Share of the machine's memory, in thousandths: where less is available, templates that are not used end.
const MEMORY_MIN: u64 = 50;

/// The template of the slot, and the attempt that is to be forked from it.
#[derive(Default)]
pub(super) struct Warm {
    pub template: Option<Template>,
    /// All processes below this one are being ended, and nothing is started until none is left.
    pub clearing: bool,
    /// What the attempt's process is to be told.
    pending: Option<(Plan, Prepared)>,
    check_at: Option<Instant>,
}

/// The way to an attempt's process that was forked from a template.
pub(super) struct Channel {
    socket: OwnedFd,
    unsent: Vec<u8>,
    /// The template ended before it had made the process.
    pub lost: bool,
}

impl Channel {
    /// Why the process did not begin, if it said so.
    pub fn failure(&self) -> Option<Failure> {
        template::failure(&self.socket)
    }
}

impl Warm {
    /// The template that waits for requests or carries one out.
    fn ready(&self) -> Option<&Template> {
        let ready = |one: &&Template| matches!(one.state, State::Ready { .. });
        self.template.as_ref().filter(ready)
    }

    /// Its process, where it is not a part of the attempt itself.
    pub fn process(&self) -> Option<i32> {
        self.ready().map(|template| template.pid)
    }

    /// When to look at the template.
    pub fn check_at(&self) -> Option<Instant> {
        self.ready().and(self.check_at)
    }

    /// Takes notice of a process that has ended; whether it was the template.
    pub fn reaped(&mut self, pid: i32) -> bool {
        self.template
            .take_if(|template| template.pid == pid)
            .is_some()
    }

    /// All processes have got idle priority, which none loses again.
    pub fn lower(&mut self) {
        if let Some(template) = &mut self.template {
            template.idle = true;
        }
    }

    /// The attempt is over.
    pub fn rest(&mut self) {
        self.pending = None;
        if let Some(template) = &mut self.template
            && let State::Ready { since, cpu } = &mut template.state
        {
            (*since, *cpu) = (Instant::now(), None);
            self.check_at = Some(Instant::now() + CHECK_EVERY);
        }
    }
}

impl Engine {
    /// Ends the template, unless the next attempt is to be forked from it; whether the attempt can be started now.
    pub(super) fn make_way(&mut self, plan: Option<&Plan>) -> bool {
        if self.warm.clearing {
            return false;
        }
        let Some(template) = &self.warm.template else {
            return true;
        };
        let idle = self.has_idle_priority();
        let same = plan.is_some_and(|plan| plan.key == template.key);
        if same && (idle || !template.idle) && self.warm.ready().is_some() {
            return true;
        }
        self.end_template();
        false
    }

    /// What the next attempt is to be forked from, if from anything. It must be certain which processes are left when an
    /// attempt has ended.
    pub(super) fn plan(&self, launch: &Launch, prepared: &Prepared) -> Option<Plan> {
        let slot = &self.environment.slot;
        let plan = template::plan(launch, prepared, slot);
        plan.filter(|_| self.children.is_exact())
    }

    /// Ends the template, and what it may have left.
    pub(super) fn end_template(&mut self) {
        let Some(template) = &mut self.warm.template else {
            return;
        };
        template.state = State::Ends;
        // SAFETY: a child that is not reaped yet keeps its number.
        unsafe { libc::kill(template.pid, libc::SIGKILL) };
        if self.attempt.is_none() {
            self.warm.clearing = true;
            self.kill_below();
        }
    }

    /// Has the process of an attempt forked. Where the template is to be started first, that is the attempt's process for
    /// so long, under the attempt's limits.
    pub(super) fn fork(
        &mut self,
        plan: Plan,
        prepared: Prepared,
        pipes: &Pipes,
    ) -> Result<(i32, Beginning, Phase), NotNow> {
        let begun = if self.warm.ready().is_some() {
            let Ok(channel) = self.ask() else {
                // It has just ended.
                self.end_template();
                return Err(NotNow::TemplateEnds);
            };
            (0, Beginning::Forked(channel), Phase::Asked(Instant::now()))
        } else {
            let (pid, starting) = self.start_template(plan.key.clone(), pipes)?;
            (pid, Beginning::Executed(starting), Phase::Preloads)
        };
        self.warm.pending = Some((plan, prepared));
        Ok(begun)
    }

    fn start_template(&mut self, key: Key, pipes: &Pipes) -> Result<(i32, Starting), Ending> {
        let failed = |error: io::Error| worker_ending("make a socket for an interpreter", &error);
        let (control, theirs) = template::pair(SocketType::SEQPACKET).map_err(failed)?;
        let source = template::source();
        template::send(&control, source.as_bytes(), &[]).map_err(failed)?;
        self.listen(control.as_raw_fd(), CONTROL).map_err(failed)?;
        let root = rustix::fs::open(
            "/",
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let root = root.map_err(|error| failed(error.into()))?;
        let (program, args, env) = key.command();
        let slot = &self.environment.slot;
        let idle = self.has_idle_priority();
        let command = Command {
            program,
            args,
            env,
            folder: root.as_raw_fd(),
            stdin: self.null.as_raw_fd(),
            stdout: pipes.stdout.write.as_raw_fd(),
            stderr: pipes.stderr.write.as_raw_fd(),
            progress: theirs.as_raw_fd(),
            ruleset: slot.ruleset.as_ref().map(AsRawFd::as_raw_fd),
            file_bytes_max: None,
            files_max: self.files_max,
            group: self.pause.group(self.environment.freezer.as_deref()),
            user: self.environment.user,
            idle,
        };
        let name = command.args[0].to_string_lossy().into_owned();
        let started = self.start_command(command);
        let (pid, starting) = started.map_err(|NotStarted { failure, command }| {
            attempt::explain(&name, &command.program, failure)
        })?;
        self.warm.template = Some(Template {
            pid,
            key,
            state: State::Preloads,
            idle,
            control,
        });
        Ok((pid, starting))
    }

    /// Asks the template for a process.
    fn ask(&self) -> io::Result<Channel> {
        let template = self.warm.template.as_ref();
        let template = template.ok_or(io::ErrorKind::NotFound)?;
        let (socket, theirs) = template::pair(SocketType::STREAM)?;
        template::send(&template.control, b"fork", &[theirs.as_fd()])?;
        Ok(Channel {
            socket,
            unsent: Vec::new(),
            lost: false,
        })
    }

    /// Hears what the template says.
    pub(super) fn hear_template(&mut self) {
        while let Some(template) = &self.warm.template
            && let Some(said) = template::hear(&template.control)
        {
            let (control, pid) = (template.control.as_raw_fd(), template.pid);
            match said {
                Said::Ready => self.preloaded(pid),
                Said::Made(made) => self.forked(pid, made),
                Said::NotMade(errno) => {
                    let error = io::Error::from_raw_os_error(errno);
                    self.end_warm(worker_ending("start a process", &error));
                }
                Said::Cannot(why) => self.refuse_template(&why),
                Said::Nonsense => {
                    let _ = self.control(libc::EPOLL_CTL_DEL, control, 0, CONTROL);
                    kill(pid);
                    return;
                }
            }
        }
    }

    /// The template has imported its modules, and makes the process of the attempt for which it was started.
    fn preloaded(&mut self, pid: i32) {
        let waits = |one: &Attempt| {
            one.phase == Phase::Preloads && one.verdict.is_none() && one.ended.is_none()
        };
        if !self.attempt.as_ref().is_some_and(waits) {
            return kill(pid);
        }
        if let Some(why) = template::unfit(pid) {
            return self.refuse_template(&why);
        }
        if let Some(template) = &mut self.warm.template {
            let (since, cpu) = (Instant::now(), None);
            template.state = State::Ready { since, cpu };
        }
        match self.ask() {
            Ok(channel) => {
                if let Some(attempt) = &mut self.attempt {
                    (attempt.phase, attempt.pid) = (Phase::Asked(Instant::now()), 0);
                }
                self.starts.fork(channel);
            }
            Err(error) => self.end_warm(not_asked(&error)),
        }
    }

    /// The template has made the attempt's process, which now hears what it is to run.
    fn forked(&mut self, template: i32, made: i32) {
        let asked = |one: &Attempt| matches!(one.phase, Phase::Asked(_));
        if !self.attempt.as_ref().is_some_and(asked) {
            return;
        }
        // Not its own number, nor that of any process but a child of this one.
        let known = made != template && self.children.list().contains(&made);
        let Some((plan, prepared)) = self.warm.pending.take().filter(|_| known) else {
            return kill(template);
        };
        if let Some(attempt) = &mut self.attempt {
            (attempt.phase, attempt.pid) = (Phase::Runs, made);
        }
        let (Some(attempt), Some((launch, channel))) = (&self.attempt, self.starts.forked()) else {
            return;
        };
        let slot = &self.environment.slot;
        let most = file_bytes_max(launch, slot, self.environment.setup.disk_reserve);
        let idle = self.environment.report.idle || self.lowered;
        let payload = plan.payload(launch, &prepared, most, idle);
        let pipes = &attempt.pipes;
        let mut files = vec![
            prepared.stdin.as_ref().unwrap_or(&self.null).as_fd(),
            pipes.stdout.write.as_fd(),
            pipes.stderr.write.as_fd(),
            pipes.advance.write.as_fd(),
            slot.work.as_fd(),
        ];
        files.extend(slot.ruleset.as_ref().map(AsFd::as_fd));
        match template::send(&channel.socket, &payload, &files) {
            Ok(sent) if sent == payload.len() => {}
            Ok(sent) => {
                channel.unsent = payload[sent..].to_vec();
                let fd = channel.socket.as_raw_fd();
                if self
                    .control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLOUT, CHANNEL)
                    .is_err()
                {
                    kill(made);
                }
            }
            Err(_) => kill(made),
        }
    }

    /// Sends on where a long command or environment did not fit into the socket at once.
    pub(super) fn send_on(&mut self) {
        let Some(channel) = self.starts.channel() else {
            return;
        };
        let sent = match template::send(&channel.socket, &channel.unsent, &[]) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // The process is gone.
            Err(_) => channel.unsent.len(),
        };
        channel.unsent.drain(..sent);
        if channel.unsent.is_empty() {
            let fd = channel.socket.as_raw_fd();
            let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, CHANNEL);
        }
    }

    /// Ends an attempt whose modules leave no interpreter that could be forked.
    fn refuse_template(&mut self, why: &str) {
        let why = format!(
            "no process can be forked from the interpreter once it has imported the modules of `preload`: {why}. \
             Leave out the module that does this, or use runtime = \"process\""
        );
        self.end_warm(Ending::NotStarted { why });
    }

    fn end_warm(&mut self, ending: Ending) {
        if let Some(id) = self.attempt.as_ref().map(|attempt| attempt.id) {
            self.end(id, ending);
        }
    }

    /// Whether the template ended while it was asked for the attempt's process.
    pub(super) fn take_lost(&mut self) -> bool {
        let asked =
            |one: &&mut Attempt| matches!(one.phase, Phase::Asked(_)) && one.ended.is_none();
        let gone = self.warm.template.is_none();
        let lost = self
            .attempt
            .as_mut()
            .filter(|one| gone && asked(one))
            .is_some();
        if lost && let Some(channel) = self.starts.channel() {
            channel.lost = true;
        }
        lost
    }

    /// Whether nothing is left below this process but a template that waits. Nobody but this process takes its children
    /// off the kernel's list, so that the list is whole; and whatever is not a child is below one.
    pub(super) fn only_template_is_left(&self) -> bool {
        let process = self.warm.process();
        process.is_some_and(|pid| self.children.is_exact() && self.children.list() == [pid])
    }

    /// The processes of the attempt.
    pub(super) fn processes(&self) -> Vec<i32> {
        let template = self.warm.process();
        let mut children = self.children.list();
        children.retain(|pid| Some(*pid) != template);
        tree::below(children)
    }

    /// When a template that was asked for a process is given up.
    pub(super) fn asked_until(&self) -> Option<Instant> {
        let attempt = self.attempt.as_ref().filter(|_| !self.pause.on())?;
        match attempt.phase {
            Phase::Asked(since) => Some(since + ASKED_MAX),
            Phase::Preloads | Phase::Runs => None,
        }
    }

    /// Gives up a template that made no process.
    pub(super) fn give_up_template(&mut self) {
        if let Some(pid) = self.warm.process() {
            kill(pid);
        }
        if let Some(attempt) = &mut self.attempt {
            attempt.phase = Phase::Asked(Instant::now());
        }
    }

    /// Checks a template that was not asked for a process recently.
    pub(super) fn check_template(&mut self) {
        let Some(template) = &mut self.warm.template else {
            return;
        };
        let State::Ready { since, cpu } = &mut template.state else {
            return;
        };
        self.warm.check_at = Some(Instant::now() + CHECK_EVERY);
        if self.attempt.is_some() {
            return;
        }
        let used = tree::cpu_of(template.pid);
        let works = cpu.is_some_and(|before| used.saturating_sub(before) > USED_MAX);
        *cpu = Some(used);
        let unused = since.elapsed() > UNUSED_MAX;
        if works || unused || template::memory_available().is_some_and(|left| left < MEMORY_MIN) {
            self.end_template();
        }
    }
}

fn kill(pid: i32) {
    // SAFETY: a child of this process that is not reaped yet, which keeps its number.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

fn not_asked(error: &io::Error) -> Ending {
    worker_ending("ask an interpreter for a process", error)
}
