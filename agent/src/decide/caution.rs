//! Holds all removals, however few, while objects may be missing by mistake.
//! The API server may now belong to another cluster. Or a custom resource
//! definition may have been deleted. The removal budget of
//! [`crate::decide::guard`] does not affect this hold. The code is pure: it
//! does no I/O.
//!
//! An input that uses an API server looks up the cluster and the definitions
//! *after* each listing or deletion that it receives ([`crate::input::look`]).
//! The input passes the objects on at once, but first sends the number of the
//! look that removals must wait for. The removals begin once that look has
//! ended ([`ClusterLooks`]). With an API server, the state of the cluster and of
//! the definitions is therefore known before any removal begins. A short wait
//! is not reported.

use std::{collections::BTreeMap, fmt, mem};

use crate::{
    decide::{
        absence::Missing,
        retain::{ClusterLooks, Removals},
    },
    event::origin::{Answer, Definition, Word},
};

/// Why removals are held regardless of their number.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Hold {
    /// The objects come from another cluster than the entries in the kernel.
    OtherCluster {
        /// The UID of namespace kube-system in the previous cluster.
        was: String,
        /// The UID of namespace kube-system in the cluster that answers now.
        is: String,
    },
    /// A custom resource definition and its objects were deleted or are being
    /// deleted.
    Definition(&'static str, Definition),
    /// An input could not look up the cluster or a definition; the field is the
    /// reason.
    Unknown(String),
    /// Listings left objects out, and the agent does not believe that the
    /// objects were deleted. Only the removals of the left-out objects' entries
    /// are held. The reason `Missing` comes from [`crate::decide::absence`],
    /// never from [`Caution`].
    Missing(Missing),
}

impl Hold {
    /// Whether the hold continues when its reason no longer applies. Such a
    /// hold ends only when the removals are released or the entries are wanted
    /// again. For example, a definition that is created again has no objects at
    /// first, so the removals must stay held.
    fn lasts(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherCluster { was, is } => write!(
                f,
                "this director's table comes from the cluster whose namespace kube-system has UID \
                 {was}, but the API server that answers now belongs to another cluster, {is}: the \
                 agent was given another kubeconfig, or etcd was emptied. If this is a mistake, \
                 give the agent its cluster back"
            ),
            Self::Definition(name, Definition::Terminating) => write!(
                f,
                "CustomResourceDefinition {name} is being deleted, and its objects with it; when \
                 it is gone, install the chart's CRDs again, and then the objects"
            ),
            Self::Definition(name, _) => write!(
                f,
                "CustomResourceDefinition {name} was deleted, and its objects with it; install the \
                 chart's CRDs again, and then the objects"
            ),
            Self::Unknown(why) => write!(f, "{why}; trying again"),
            Self::Missing(missing) => missing.fmt(f),
        }
    }
}

/// The known state of the cluster and of the custom resource definitions.
#[derive(Clone, Debug, Default)]
pub struct Caution {
    /// The cluster from which this director's table comes, or none if no
    /// cluster is known. The journal recorded the cluster, or this run accepted
    /// it.
    remembered: Option<String>,
    /// Whether the cluster in `remembered` is not recorded in the journal yet.
    is_unsaved: bool,
    cluster: Option<Answer<String>>,
    definitions: BTreeMap<&'static str, Answer<Definition>>,
    /// Whether a definition was gone or terminating since the last judgement.
    /// The definition may already exist again.
    was_gone: bool,
    looks: ClusterLooks,
}

impl Caution {
    /// Records the cluster from the journal. The journal's cluster replaces a
    /// cluster that was accepted while there was no journal.
    pub fn remember(&mut self, cluster: Option<String>) {
        if cluster.is_some() {
            self.remembered = cluster;
            self.is_unsaved = false;
        }
    }

    /// Records an input's answer about the cluster or a definition, or that a
    /// look is awaited or has ended. Returns whether another judgement is
    /// needed: the answer differs from the previous answer, or removals waited
    /// for the look.
    pub fn hear(&mut self, word: Word) -> bool {
        match word {
            Word::Awaited { look, is_listing } => {
                self.looks.wait_for(look, is_listing);
                false
            }
            Word::Ended(look) => self.looks.end(look),
            Word::Cluster(answer) => {
                let answer = Some(answer);
                let is_news = self.cluster != answer;
                self.cluster = answer;
                is_news
            }
            Word::Definition(name, answer) => {
                self.was_gone |= matches!(&answer, Answer::Is(how) if *how != Definition::Stands);
                let before = self.definitions.insert(name, answer);
                before.as_ref() != self.definitions.get(name)
            }
        }
    }

    /// Returns the reason to hold every removal, if there is one.
    pub fn hold(&self) -> Option<Hold> {
        let other = match (&self.remembered, &self.cluster) {
            (Some(was), Some(Answer::Is(is))) if was != is => Some(Hold::OtherCluster {
                was: was.clone(),
                is: is.clone(),
            }),
            _ => None,
        };
        let gone = self.definitions.iter().find_map(|(name, answer)| {
            let Answer::Is(how) = answer else { return None };
            (*how != Definition::Stands).then_some(Hold::Definition(name, *how))
        });
        let unknown = || {
            let cluster = self.cluster.iter();
            let cluster =
                cluster.filter_map(|answer| self.unanswered(answer, "namespace kube-system"));
            let definitions = self.definitions.iter().filter_map(|(name, answer)| {
                self.unanswered(answer, &format!("CustomResourceDefinition {name}"))
            });
            cluster.chain(definitions).map(Hold::Unknown).next()
        };
        other.or(gone).or_else(unknown)
    }

    /// Returns why the cluster or a definition is unknown, or none if it is
    /// known. If the journal names a cluster, an earlier run was allowed to
    /// read the cluster. If the permission is missing now, the answer counts as
    /// unknown. Whoever took the permission away may also have connected the
    /// agent to another cluster.
    fn unanswered<T>(&self, answer: &Answer<T>, what: &str) -> Option<String> {
        match answer {
            Answer::Is(_) => None,
            Answer::None(why) => Some(why.clone()),
            Answer::NotAllowed => self.remembered.as_ref().map(|_| {
                format!(
                    "the agent is no longer allowed to read {what}, so this may be another \
                     cluster than before, or one without our definitions; grant the permission \
                     again by upgrading the chart"
                )
            }),
        }
    }

    /// Whether the objects come from another cluster, or the cluster of the
    /// last listing is not known yet. The agent ignores a holder that is named
    /// in another cluster, so the virtual addresses stay where they are.
    pub fn may_be_elsewhere(&self) -> bool {
        self.looks.awaits_listing() || matches!(self.hold(), Some(Hold::OtherCluster { .. }))
    }

    /// Returns the looks that removals wait for.
    pub fn looks(&self) -> ClusterLooks {
        self.looks
    }

    /// Decides whether entries that are no longer wanted may be removed. The
    /// caller must know all objects. The first cluster that answers becomes
    /// this director's cluster. Another cluster replaces this director's
    /// cluster only when the removals are released.
    pub fn judge(&mut self, is_released: bool) -> Removals {
        if let Some(Answer::Is(found)) = &self.cluster
            && (is_released || self.remembered.is_none())
            && self.remembered.as_ref() != Some(found)
        {
            self.remembered = Some(found.clone());
            self.is_unsaved = true;
        }
        let was_gone = mem::take(&mut self.was_gone);
        match self.hold() {
            _ if is_released => Removals::Released,
            None if was_gone => Removals::Held { lasting: true },
            None => Removals::Guarded,
            Some(hold) => Removals::Held {
                lasting: was_gone || hold.lasts(),
            },
        }
    }

    /// Returns the cluster that the journal must still record, if there is one.
    pub fn unsaved(&self) -> Option<&str> {
        let remembered = self.remembered.as_deref();
        remembered.filter(|_| self.is_unsaved)
    }

    /// Notes that the journal has recorded the cluster.
    pub fn saved(&mut self) {
        self.is_unsaved = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: &str = "ipvsvirtualservices.ipvs.dev";
    const HELD: Removals = Removals::Held { lasting: true };

    fn cluster(uid: &str) -> Word {
        Word::Cluster(Answer::Is(uid.to_owned()))
    }

    fn definition(how: Definition) -> Word {
        Word::Definition(SERVICES, Answer::Is(how))
    }

    /// Returns the state of a director in cluster `a` after all inputs have
    /// answered.
    fn settled() -> Caution {
        let mut caution = Caution::default();
        caution.hear(cluster("a"));
        caution.hear(definition(Definition::Stands));
        assert_eq!(caution.judge(false), Removals::Guarded);
        caution
    }

    #[test]
    fn without_an_api_server_there_is_only_the_budget() {
        assert_eq!(Caution::default().judge(false), Removals::Guarded);
        assert_eq!(Caution::default().judge(true), Removals::Released);
    }

    #[test]
    fn the_first_cluster_is_saved_once() {
        let mut caution = settled();
        assert_eq!(caution.unsaved(), Some("a"));
        caution.judge(false);
        assert_eq!(caution.unsaved(), Some("a"), "until the journal has it");
        caution.saved();
        caution.judge(false);
        assert_eq!(caution.unsaved(), None);
    }

    #[test]
    fn a_journal_that_comes_late_knows_better() {
        let mut caution = settled();
        caution.remember(None);
        assert!(
            caution.unsaved().is_some(),
            "what was found meanwhile is saved"
        );
        caution.remember(Some("b".to_owned()));
        assert_eq!(caution.judge(false), HELD);
        assert_eq!(caution.unsaved(), None);
    }

    #[test]
    fn another_cluster_holds_everything_until_it_is_released_and_is_ours_then() {
        let mut caution = Caution::default();
        caution.remember(Some("a".to_owned()));
        caution.hear(cluster("b"));
        assert_eq!(caution.judge(false), HELD);
        assert!(caution.may_be_elsewhere());
        let message = caution.hold().expect("it is held").to_string();
        for part in ["UID a", "another cluster, b"] {
            assert!(message.contains(part), "{part} in: {message}");
        }

        assert_eq!(caution.judge(true), Removals::Released);
        assert_eq!(caution.judge(false), Removals::Guarded, "b is ours now");
        assert_eq!(caution.unsaved(), Some("b"));
        caution.hear(cluster("a"));
        assert_eq!(caution.judge(false), HELD, "and a is another cluster");
    }

    #[test]
    fn when_the_own_cluster_is_back_nothing_is_held() {
        let mut caution = settled();
        caution.hear(cluster("b"));
        assert_eq!(caution.judge(false), HELD);
        caution.hear(cluster("a"));
        assert_eq!(caution.judge(false), Removals::Guarded);
    }

    #[test]
    fn a_definition_that_is_not_there_or_goes_holds_everything() {
        for how in [
            Definition::Terminating,
            Definition::Missing,
            Definition::Replaced,
        ] {
            let mut caution = settled();
            assert!(caution.hear(definition(how)), "it is news");
            assert!(!caution.hear(definition(how)), "and only once");
            assert_eq!(caution.judge(false), HELD, "{how:?}");
            assert!(!caution.may_be_elsewhere(), "it does not change the holder");
            let message = caution.hold().expect("it is held").to_string();
            assert!(message.contains(SERVICES), "{message}");
            assert_eq!(caution.judge(true), Removals::Released, "{how:?}");
            caution.hear(definition(Definition::Stands));
            assert_eq!(caution.judge(false), Removals::Guarded);
        }
    }

    #[test]
    fn a_definition_that_was_gone_between_two_judgements_holds_once() {
        let mut caution = settled();
        caution.hear(definition(Definition::Replaced));
        caution.hear(definition(Definition::Stands));
        assert_eq!(caution.hold(), None);
        assert_eq!(caution.judge(false), HELD, "what it deleted stays held");
        assert_eq!(caution.judge(false), Removals::Guarded);
    }

    #[test]
    fn until_the_look_after_a_listing_has_ended_this_may_be_another_cluster() {
        let mut caution = settled();
        let awaited = |look, is_listing| Word::Awaited { look, is_listing };
        assert!(!caution.hear(awaited(1, false)), "nothing has changed yet");
        assert!(!caution.may_be_elsewhere());
        assert!(caution.hear(Word::Ended(1)), "a removal may begin now");
        assert!(!caution.hear(Word::Ended(2)), "nothing waited for it");
        caution.hear(awaited(4, true));
        caution.hear(Word::Ended(3));
        assert!(caution.may_be_elsewhere());
        caution.hear(Word::Ended(4));
        assert!(!caution.may_be_elsewhere());
    }

    #[test]
    fn without_an_answer_removals_wait_and_nothing_is_forgotten() {
        let no_answer = || "no answer about it".to_owned();
        let waits = Removals::Held { lasting: false };
        let mut caution = settled();
        caution.hear(Word::Cluster(Answer::None(no_answer())));
        assert_eq!(caution.judge(false), waits);
        caution.hear(cluster("b"));
        assert_eq!(caution.judge(false), HELD, "a was not forgotten");

        let mut caution = settled();
        caution.hear(Word::Definition(SERVICES, Answer::None(no_answer())));
        assert_eq!(caution.judge(false), waits);
        caution.hear(definition(Definition::Terminating));
        assert_eq!(caution.judge(false), HELD);
    }

    #[test]
    fn who_may_no_longer_look_knows_nothing_if_an_earlier_run_did() {
        let waits = Removals::Held { lasting: false };
        for (word, what) in [
            (Word::Cluster(Answer::NotAllowed), "namespace kube-system"),
            (Word::Definition(SERVICES, Answer::NotAllowed), SERVICES),
        ] {
            let mut caution = Caution::default();
            caution.remember(Some("a".to_owned()));
            caution.hear(word);
            assert_eq!(caution.judge(false), waits, "{what}");
            let message = caution.hold().expect("it is held").to_string();
            for part in [what, "no longer allowed", "upgrading the chart"] {
                assert!(message.contains(part), "{part} in: {message}");
            }
            assert_eq!(caution.judge(true), Removals::Released, "{what}");
            assert_eq!(caution.judge(false), waits, "{what}: nothing is known yet");
            caution.hear(cluster("a"));
            caution.hear(definition(Definition::Stands));
            assert_eq!(caution.judge(false), Removals::Guarded, "{what}");
        }
    }

    #[test]
    fn an_agent_that_could_never_look_has_only_the_budget() {
        let mut caution = Caution::default();
        caution.hear(Word::Cluster(Answer::NotAllowed));
        caution.hear(Word::Definition(SERVICES, Answer::NotAllowed));
        assert_eq!(caution.judge(false), Removals::Guarded);
    }
}
