//! Cores: the server has one for itself where it is measured among strangers, so that the work of
//! playing them is not taken for work that they cause.

use std::fs;
use std::num::NonZero;
use std::thread::available_parallelism;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The server on one core and this program on the others, until this is dropped. With a single core
/// they share it.
pub(crate) struct Apart {
    all: CpuSet,
}

impl Apart {
    /// Moves them apart.
    pub(crate) fn from(server: u32) -> Self {
        let all = sched_getaffinity(None).unwrap();
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
        if available_parallelism().is_ok_and(|cores| cores > NonZero::<usize>::MIN) {
            let (mut first, mut others) = (CpuSet::new(), all);
            first.set(cores[0]);
            others.unset(cores[0]);
            move_to(server, &first);
            move_to(std::process::id(), &others);
        }
        Self { all }
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        move_to(std::process::id(), &self.all);
    }
}

/// Moves all threads of a process, and with them those that they will start.
fn move_to(process: u32, cores: &CpuSet) {
    for thread in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let id = thread.unwrap().file_name().to_string_lossy().parse().unwrap();
        // A thread that has ended in the meantime needs no core.
        let _gone = sched_setaffinity(Pid::from_raw(id), cores);
    }
}
