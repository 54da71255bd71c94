//! Where the data of a run are: which machine holds what, and how long another one takes to fetch it.

use super::model::Machine;
use super::workflow::Workflow;

/// Who holds each blob. What nobody holds is at the supervisors, whose links are faster than those of machines: files
/// of the client from the start, and what a machine leaves behind that goes.
#[derive(Clone, Debug)]
pub(crate) struct Holders(Vec<Vec<u32>>);

impl Holders {
    /// All data are at the supervisors.
    pub fn new(workflow: &Workflow) -> Self {
        Self(vec![Vec::new(); workflow.blobs.len()])
    }

    /// Seconds that a machine takes from `from` on to fetch what it does not hold of a task's inputs, one blob after
    /// the other, and their bytes. The slower of the two links limits the rate; transfers do not share links.
    pub fn fetch(
        &self,
        workflow: &Workflow,
        task: usize,
        machine: usize,
        machines: &[Machine],
        from: f64,
    ) -> (f64, u64) {
        let own = machines[machine].link;
        let (mut seconds, mut bytes) = (0.0, 0);
        for blob in &workflow.tasks[task].inputs {
            let holders = &self.0[*blob as usize];
            if holders.contains(&(machine as u32)) {
                continue;
            }
            let there = holders
                .iter()
                .filter_map(|holder| machines.get(*holder as usize));
            let there =
                there.filter(|holder| (holder.presence.from..holder.presence.to).contains(&from));
            let fastest = there.map(|holder| holder.link).reduce(f64::max);
            let rate = fastest.map_or(own, |other| other.min(own));
            let size = workflow.blobs[*blob as usize];
            seconds += size as f64 / rate;
            bytes += size;
        }
        (seconds, bytes)
    }

    /// A machine has a task's inputs, and keeps them.
    pub fn keep_inputs(&mut self, workflow: &Workflow, task: usize, machine: usize) {
        self.keep(&workflow.tasks[task].inputs, machine);
    }

    /// A machine has what a task left.
    pub fn keep_outputs(&mut self, workflow: &Workflow, task: usize, machine: usize) {
        self.keep(&workflow.tasks[task].outputs, machine);
    }

    fn keep(&mut self, blobs: &[u32], machine: usize) {
        for blob in blobs {
            let holders = &mut self.0[*blob as usize];
            if !holders.contains(&(machine as u32)) {
                holders.push(machine as u32);
            }
        }
    }
}
