//! What holds every removal, however small, besides the budget of the
//! [`crate::decide::guard`]. Objects also disappear when the API server turns
//! out to be another cluster's than the one that this director's table comes
//! from, or when a custom resource definition is deleted. Nobody meant to
//! delete those objects. Pure.
//!
//! An input that asks an API server looks at both *after* it has received the
//! objects of a listing or the removal of one, and reports what it found
//! *before* it passes them on ([`crate::input::origin`]). So nothing is known
//! here only while there is nothing to remove, or where there is no API server.

use std::{collections::BTreeMap, fmt};

use crate::{
    decide::retain::Removals,
    event::origin::{Answer, Definition, Word},
};

/// Why every removal is held.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Hold {
    /// The objects are another cluster's than those that were programmed.
    OtherCluster {
        /// The UID of namespace kube-system in the previous cluster.
        was: String,
        /// The UID of namespace kube-system in the cluster that answers now.
        is: String,
    },
    /// A definition is being deleted or was deleted, and its objects with it.
    Definition(&'static str, Definition),
    /// An input could not find out, for this reason.
    Unknown(String),
}

impl Hold {
    /// Whether the removals stay held after the reason is gone, until they are
    /// released or the entries are wanted again: a definition that is back has
    /// no objects yet.
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
        }
    }
}

/// What is known of the cluster and of the custom resource definitions.
#[derive(Clone, Debug, Default)]
pub struct Caution {
    /// The cluster that this director's table comes from, by its journal.
    remembered: Option<String>,
    /// Whether the journal does not remember that cluster yet.
    is_unsaved: bool,
    cluster: Option<Answer<String>>,
    definitions: BTreeMap<&'static str, Answer<Definition>>,
}

impl Caution {
    /// Records the cluster that the journal names. It replaces any cluster that
    /// was accepted while there was no journal.
    pub fn remember(&mut self, cluster: Option<String>) {
        if cluster.is_some() {
            self.remembered = cluster;
            self.is_unsaved = false;
        }
    }

    /// Records what an input found. Returns whether it is news.
    pub fn hear(&mut self, word: Word) -> bool {
        match word {
            Word::Cluster(answer) => {
                let answer = Some(answer);
                let is_news = self.cluster != answer;
                self.cluster = answer;
                is_news
            }
            Word::Definition(name, answer) => {
                let before = self.definitions.insert(name, answer);
                before.as_ref() != self.definitions.get(name)
            }
        }
    }

    /// Returns why every removal is held, if it is.
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
            let definitions = self.definitions.values().filter_map(unanswered);
            let all = self
                .cluster
                .iter()
                .filter_map(unanswered)
                .chain(definitions);
            all.map(Hold::Unknown).next()
        };
        other.or(gone).or_else(unknown)
    }

    /// Whether the objects are another cluster's. Then the virtual addresses
    /// stay where they are as well, because that cluster names their holder.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.hold(), Some(Hold::OtherCluster { .. }))
    }

    /// Decides whether what is no longer wanted may be removed, now that all
    /// objects are known. The first cluster becomes this director's; another
    /// one does when the removals are released.
    pub fn judge(&mut self, is_released: bool) -> Removals {
        if let Some(Answer::Is(found)) = &self.cluster
            && (is_released || self.remembered.is_none())
            && self.remembered.as_ref() != Some(found)
        {
            self.remembered = Some(found.clone());
            self.is_unsaved = true;
        }
        match self.hold() {
            _ if is_released => Removals::Released,
            None => Removals::Guarded,
            Some(hold) => Removals::Held {
                lasting: hold.lasts(),
            },
        }
    }

    /// Returns the cluster that the journal must still record, if any.
    pub fn unsaved(&self) -> Option<&str> {
        let remembered = self.remembered.as_deref();
        remembered.filter(|_| self.is_unsaved)
    }

    /// Notes that the journal has recorded the cluster.
    pub fn saved(&mut self) {
        self.is_unsaved = false;
    }
}

fn unanswered<T>(answer: &Answer<T>) -> Option<String> {
    match answer {
        Answer::None(why) => Some(why.clone()),
        Answer::Is(_) | Answer::NotAllowed => None,
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

    /// A director of cluster a whose inputs have all answered.
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
        assert!(caution.is_elsewhere());
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
            assert!(!caution.is_elsewhere(), "it does not change the holder");
            let message = caution.hold().expect("it is held").to_string();
            assert!(message.contains(SERVICES), "{message}");
            assert_eq!(caution.judge(true), Removals::Released, "{how:?}");
            caution.hear(definition(Definition::Stands));
            assert_eq!(caution.judge(false), Removals::Guarded);
        }
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
    fn an_agent_that_may_not_look_has_only_the_budget() {
        let mut caution = Caution::default();
        caution.hear(Word::Cluster(Answer::NotAllowed));
        caution.hear(Word::Definition(SERVICES, Answer::NotAllowed));
        assert_eq!(caution.judge(false), Removals::Guarded);
    }
}
