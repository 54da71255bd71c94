//! Attempts that are forked from a template.

use super::beginning::{Beginning, Channel, NotNow, file_bytes_max};
use super::{CHANNEL, CONTROL, Engine};
use crate::Launch;
use crate::shortage::worker_ending;
use crate::spawner::attempt::{Attempt, Phase, Pipes, Prepared};
use crate::spawner::child::{Command, NotStarted, Starting};
use crate::spawner::template::{self, Key, Plan, Said, State, Template};
use crate::spawner::{attempt, tree};
use hedge_model::Ending;
use rustix::net::SocketType;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// The time limit of a template to fork a process. Forking is quick, but at idle priority it waits for the processor.
const ASKED_MAX: Duration = Duration::from_secs(20);
/// A template that has forked no process for this long ends.
const UNUSED_MAX: Duration = Duration::from_secs(30);
/// The delay between two checks of an idle template.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The most CPU time that an idle template may use between two checks: it only waits.
const USED_MAX: Duration = Duration::from_millis(20);
/// Asks a template for the process of an attempt that waits for it.
const FORK: &[u8] = b"fork";
/// Asks a template for a process that is to wait for its attempt, and prepares for it meanwhile.
const SPARE: &[u8] = b"spare";
/// The delay after the end of an attempt before the process of the next one is forked. The report of the end comes first,
/// and an attempt that comes sooner needs none.
const SPARE_AFTER: Duration = Duration::from_millis(1);
/// Thousandths of the machine's memory. If less is available, idle templates end.
const MEMORY_MIN: u64 = 50;

/// The template of the slot, and the attempt that is to be forked from it.
#[derive(Default)]
pub(super) struct Warm {
    pub template: Option<Template>,
    /// Whether all processes below the spawner are being killed. Nothing starts until none is left.
    pub clearing: bool,
    /// What the process of the attempt is to run, until it is forked.
    pending: Option<(Plan, Prepared)>,
    /// The process of the next attempt, forked before that comes. It exists only while no attempt runs.
    spare: Option<Spare>,
    /// When to have it forked.
    spare_at: Option<Instant>,
    check_at: Option<Instant>,
}

/// A process that was forked from the template for the next attempt, and waits for what it is to run.
struct Spare {
    channel: Channel,
    /// None until the template has forked it.
    pid: Option<i32>,
}

impl Warm {
    /// Returns the template if it has imported its modules and can fork.
    fn ready(&self) -> Option<&Template> {
        let ready = |one: &&Template| matches!(one.state, State::Ready { .. });
        self.template.as_ref().filter(ready)
    }

    /// Returns the template's process. A template that still imports its modules is the attempt's process instead.
    pub fn process(&self) -> Option<i32> {
        self.ready().map(|template| template.pid)
    }

    /// Returns when to check the template.
    pub fn check_at(&self) -> Option<Instant> {
        self.ready().and(self.check_at)
    }

    /// Returns when to have the process of the next attempt forked.
    pub fn spare_at(&self) -> Option<Instant> {
        self.ready().and(self.spare_at)
    }

    /// Handles the end of a process. Returns whether it was the template.
    pub fn reaped(&mut self, pid: i32) -> bool {
        let template = self.template.take_if(|template| template.pid == pid);
        self.spare
            .take_if(|spare| spare.pid == Some(pid) || template.is_some());
        template.is_some()
    }

    /// Records that all processes have idle priority now, which none loses again.
    pub fn lower(&mut self) {
        if let Some(template) = &mut self.template {
            template.idle = true;
        }
    }

    /// Records that the attempt is over, so that the template is idle.
    pub fn rest(&mut self) {
        self.pending = None;
        if let Some(template) = &mut self.template
            && let State::Ready { since, cpu } = &mut template.state
        {
            (*since, *cpu) = (Instant::now(), None);
            self.check_at = Some(Instant::now() + CHECK_EVERY);
            self.spare_at = Some(Instant::now() + SPARE_AFTER);
        }
    }
}

impl Engine {
    /// Ends the template, unless the next attempt is to be forked from it. Returns whether the attempt can start now.
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

    /// Returns the plan for an attempt that is to be forked; none if it is to be executed. Forking needs an exact list of
    /// the processes that are left when an attempt has ended.
    pub(super) fn plan(&self, launch: &Launch, prepared: &Prepared) -> Option<Plan> {
        let slot = &self.environment.slot;
        let plan = template::plan(launch, prepared, slot);
        plan.filter(|_| self.children.is_exact())
    }

    /// Kills the template and, if no attempt runs, all processes that it may have left.
    pub(super) fn end_template(&mut self) {
        let Some(template) = &mut self.warm.template else {
            return;
        };
        template.state = State::Ends;
        self.warm.spare = None;
        // SAFETY: a child that is not reaped yet keeps its number.
        unsafe { libc::kill(template.pid, libc::SIGKILL) };
        if self.attempt.is_none() {
            self.warm.clearing = true;
            self.kill_below();
        }
    }

    /// Has the process of an attempt forked. If the template must be started first, the template is the attempt's process
    /// until then, under the attempt's limits.
    pub(super) fn fork(
        &mut self,
        plan: Plan,
        prepared: Prepared,
        pipes: &Pipes,
    ) -> Result<(i32, Beginning, Phase), NotNow> {
        let begun = if self.warm.ready().is_some() {
            self.warm.spare_at = None;
            let spare = self.warm.spare.take();
            let made = spare.as_ref().and_then(|spare| spare.pid);
            let asked = spare.map_or_else(|| self.ask(FORK), |spare| Ok(spare.channel));
            let Ok(channel) = asked else {
                // It has just ended.
                self.end_template();
                return Err(NotNow::TemplateEnds);
            };
            let pid = made.unwrap_or(0);
            (
                pid,
                Beginning::Forked(channel),
                Phase::Asked(Instant::now()),
            )
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
            cwd: None,
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

    /// Has the process of the next attempt forked while none runs, so that the next one does not wait for that.
    pub(super) fn make_spare(&mut self) {
        self.warm.spare_at = None;
        let comes = self.attempt.is_some() || self.starts.next().is_some();
        let ready = self.warm.ready().is_some() && !self.warm.clearing && !self.pause.on();
        if ready
            && !comes
            && let Ok(channel) = self.ask(SPARE)
        {
            self.warm.spare = Some(Spare { channel, pid: None });
        }
    }

    /// Asks the template to fork a process.
    fn ask(&self, request: &[u8]) -> io::Result<Channel> {
        let template = self.warm.template.as_ref();
        let template = template.ok_or(io::ErrorKind::NotFound)?;
        let (socket, theirs) = template::pair(SocketType::STREAM)?;
        template::send(&template.control, request, &[theirs.as_fd()])?;
        Ok(Channel::new(socket))
    }

    /// Handles the messages of the template.
    pub(super) fn hear_template(&mut self) {
        while let Some(template) = &self.warm.template
            && let Some(said) = template::hear(&template.control)
        {
            let (control, pid) = (template.control.as_raw_fd(), template.pid);
            match said {
                Said::Ready => self.preloaded(pid),
                Said::Made(made) => self.forked(pid, made),
                Said::NotMade(errno) => {
                    self.warm.spare = None;
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

    /// Handles that the template has imported its modules: asks it to fork the process of the attempt for which it was
    /// started.
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
        match self.ask(FORK) {
            Ok(channel) => {
                if let Some(attempt) = &mut self.attempt {
                    (attempt.phase, attempt.pid) = (Phase::Asked(Instant::now()), 0);
                }
                self.starts.fork(channel);
            }
            Err(error) => self.end_warm(not_asked(&error)),
        }
    }

    /// Handles that the template has forked the process `made`, for the attempt or for the next one.
    fn forked(&mut self, template: i32, made: i32) {
        // The template must not name itself or a process that is no child of the spawner.
        let known = made != template && self.children.list().contains(&made);
        let asked = |one: &Attempt| matches!(one.phase, Phase::Asked(_)) && one.pid == 0;
        match (&self.attempt, &mut self.warm.spare) {
            (Some(attempt), _) if asked(attempt) && known => self.hand_over(made),
            (None, Some(spare)) if spare.pid.is_none() && known => spare.pid = Some(made),
            (Some(attempt), _) if !asked(attempt) => {}
            _ => kill(template),
        }
    }

    /// Sends the process `made` of the attempt what it is to run.
    pub(super) fn hand_over(&mut self, made: i32) {
        let Some((plan, prepared)) = self.warm.pending.take() else {
            return kill(made);
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

    /// Sends the rest of a command and environment that did not fit into the socket at once.
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

    /// Ends an attempt whose modules prevent forking.
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

    /// Returns whether the template ended while it was to fork the attempt's process, and records that.
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

    /// Returns whether an idle template is the only process left below the spawner. Only the spawner removes its children
    /// from the kernel's list, so the list is complete; all other processes are below a child.
    pub(super) fn only_template_is_left(&self) -> bool {
        let process = self.warm.process();
        process.is_some_and(|pid| self.children.is_exact() && self.children.list() == [pid])
    }

    /// Returns the processes of the attempt.
    pub(super) fn processes(&self) -> Vec<i32> {
        let template = self.warm.process();
        let mut children = self.children.list();
        children.retain(|pid| Some(*pid) != template);
        tree::below(children)
    }

    /// Returns when a template that has not forked the requested process is killed.
    pub(super) fn asked_until(&self) -> Option<Instant> {
        let attempt = self.attempt.as_ref().filter(|_| !self.pause.on())?;
        match attempt.phase {
            Phase::Asked(since) => Some(since + ASKED_MAX),
            Phase::Preloads | Phase::Runs => None,
        }
    }

    /// Kills a template that forked no process in time.
    pub(super) fn give_up_template(&mut self) {
        if let Some(pid) = self.warm.process() {
            kill(pid);
        }
        if let Some(attempt) = &mut self.attempt {
            attempt.phase = Phase::Asked(Instant::now());
        }
    }

    /// Checks an idle template: it ends if it uses CPU time, is unused for long, or memory is short.
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
        let spare = self.warm.spare.as_ref().and_then(|spare| spare.pid);
        let used = tree::cpu_of(template.pid) + spare.map(tree::cpu_of).unwrap_or_default();
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
