//! Queues of jobs for one thread. The namespaces share the thread's time
//! fairly, however long each job takes. The algorithm is start-time fair
//! queueing (Goyal, Vin and Cheng, SIGCOMM 1996). The code is pure: the caller
//! measures the time.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// The waiting jobs, by namespace.
#[derive(Debug)]
pub(super) struct Queues<J> {
    queues: HashMap<Arc<str>, Queue<J>>,
    /// When a job is taken, `clock` becomes the time on the thread that the
    /// job's namespace has used so far. When an idle namespace gets a job, the
    /// namespace's used time is raised to at least `clock`. So a namespace
    /// gains no advantage by being idle.
    clock: Duration,
}

#[derive(Debug)]
struct Queue<J> {
    jobs: VecDeque<J>,
    used: Duration,
}

impl<J> Default for Queues<J> {
    fn default() -> Self {
        Self {
            queues: HashMap::new(),
            clock: Duration::ZERO,
        }
    }
}

impl<J> Queues<J> {
    /// Returns the number of waiting jobs of a namespace.
    pub(super) fn waiting(&self, namespace: &str) -> usize {
        let queue = self.queues.get(namespace);
        queue.map_or(0, |queue| queue.jobs.len())
    }

    /// Adds a job at the end of a namespace's queue.
    pub(super) fn push(&mut self, namespace: &Arc<str>, job: J) {
        let queue = self.queues.entry(namespace.clone());
        let queue = queue.or_insert_with(|| Queue {
            jobs: VecDeque::new(),
            used: self.clock,
        });
        if queue.jobs.is_empty() {
            queue.used = queue.used.max(self.clock);
        }
        queue.jobs.push_back(job);
    }

    /// Takes the next job of the namespace that has used the least time. Drops
    /// jobs for which `is_wanted` is false.
    pub(super) fn pop(&mut self, is_wanted: impl Fn(&J) -> bool) -> Option<(Arc<str>, J)> {
        loop {
            let waiting = self.queues.iter_mut();
            let (namespace, queue) = waiting
                .filter(|(_, queue)| !queue.jobs.is_empty())
                .min_by(|(one, a), (other, b)| (a.used, one).cmp(&(b.used, other)))?;
            let job = queue.jobs.pop_front().expect("it is not empty");
            if !is_wanted(&job) {
                continue;
            }
            let namespace = namespace.clone();
            let clock = queue.used;
            self.clock = clock;
            let is_needed = |queue: &Queue<J>| !queue.jobs.is_empty() || queue.used > clock;
            self.queues
                .retain(|known, queue| *known == namespace || is_needed(queue));
            return Some((namespace, job));
        }
    }

    /// Adds the time that a job took to the used time of its namespace.
    pub(super) fn charge(&mut self, namespace: &str, took: Duration) {
        if let Some(queue) = self.queues.get_mut(namespace) {
            queue.used += took;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn named(name: &str) -> Arc<str> {
        name.into()
    }

    /// Runs at most `count` jobs. Returns the name of each job's namespace, in
    /// the order in which the jobs ran. The value of a job is the number of
    /// milliseconds that it takes.
    fn work(queues: &mut Queues<u32>, count: usize) -> Vec<String> {
        let mut done = Vec::new();
        for _ in 0..count {
            let Some((namespace, takes)) = queues.pop(|_| true) else {
                break;
            };
            queues.charge(&namespace, MILLISECOND * takes);
            done.push(namespace.to_string());
        }
        done
    }

    #[test]
    fn the_jobs_of_a_namespace_are_done_in_order() {
        let mut queues = Queues::default();
        for job in 0..3 {
            queues.push(&named("shop"), job);
        }
        assert_eq!(queues.waiting("shop"), 3);
        let done: Vec<_> = std::iter::from_fn(|| queues.pop(|_| true)).collect();
        let jobs: Vec<_> = done.into_iter().map(|(_, job)| job).collect();
        assert_eq!(jobs, [0, 1, 2]);
        assert_eq!(queues.waiting("shop"), 0);
    }

    #[test]
    fn a_namespace_with_slow_jobs_delays_another_one_by_one_job() {
        let mut queues = Queues::default();
        for _ in 0..1000 {
            queues.push(&named("slow"), 80);
        }
        work(&mut queues, 10);
        for _ in 0..50 {
            queues.push(&named("shop"), 1);
        }
        let done = work(&mut queues, 100);
        let last = done.iter().rposition(|namespace| namespace == "shop");
        assert!(
            last.unwrap() <= 52,
            "50 ms of its own, and at most two slow jobs: {last:?}"
        );
    }

    #[test]
    fn a_namespace_that_asks_for_one_job_at_a_time_gets_no_more_than_its_part() {
        let mut queues = Queues::default();
        let mut used = HashMap::from([("one-by-one", 0), ("shop", 0)]);
        for _ in 0..1000 {
            queues.push(&named("shop"), 1);
        }
        for _ in 0..200 {
            if queues.waiting("one-by-one") == 0 {
                queues.push(&named("one-by-one"), 80);
            }
            let (namespace, takes) = queues.pop(|_| true).unwrap();
            queues.charge(&namespace, MILLISECOND * takes);
            *used.get_mut(&*namespace).unwrap() += takes;
        }
        let [slow, shop] = [used["one-by-one"], used["shop"]];
        assert!(slow <= shop + 80, "{slow} ms and {shop} ms");
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let mut queues = Queues::default();
        queues.push(&named("idle"), 1);
        for _ in 0..300 {
            queues.push(&named("busy"), 10);
        }
        work(&mut queues, 100);
        for _ in 0..100 {
            queues.push(&named("idle"), 10);
        }
        let done = work(&mut queues, 20);
        let idle = done.iter().filter(|namespace| *namespace == "idle").count();
        assert!((9..=11).contains(&idle), "half of them: {done:?}");
    }

    #[test]
    fn a_job_that_nobody_waits_for_is_dropped_and_idle_namespaces_are_forgotten() {
        let mut queues = Queues::default();
        for number in 0..100 {
            queues.push(&named(&format!("tenant{number}")), number);
        }
        assert_eq!(queues.pop(|job| *job == 99).unwrap().1, 99);
        assert!(queues.pop(|_| true).is_none());
        queues.push(&named("shop"), 1);
        work(&mut queues, 1);
        assert!(queues.queues.len() <= 2, "{:?}", queues.queues.keys());
    }
}
