//! Checks the conditions that must hold after all faults are healed.

use super::*;

impl Story {
    /// Heals every fault, and loads the missing scheduler module. Then runs
    /// four rounds, so that every retry is made.
    fn calm(&mut self) {
        self.heal();
        self.world
            .parts()
            .kernel
            .schedulers
            .insert("twos".to_owned());
        self.agent.state.distrust();
        for _ in 0..4 {
            self.round(Duration::from_secs(61), None);
        }
    }

    pub(super) fn check(&mut self) {
        self.calm();
        let outcome = self
            .agent
            .try_round(&self.wish, self.holding)
            .expect("the kernel answers");
        assert_eq!(outcome.failures, BTreeMap::new(), "nothing fails");
        assert_eq!(self.world.news(), [""; 0], "nothing is left to do");
        self.check_table(&outcome);
        self.check_addresses(&outcome);
        self.restart();
        self.check_disk();
    }

    fn check_table(&self, outcome: &Outcome) {
        let table = &self.world.parts().kernel.table;
        let wanted = wanted(&self.wish);
        for (key, wish) in &self.wish.table {
            let found = table.get(key).expect("a wanted service is there");
            assert_eq!(found.config, wish.config, "{key}");
            for (server, config) in &wish.destinations {
                assert_eq!(
                    found.destinations.get(server),
                    Some(config),
                    "{key} {server}"
                );
            }
        }
        let mut there = BTreeSet::new();
        for (key, found) in table {
            there.insert((
                Entry::Service(*key),
                found.config.scheduler == THEIR_SCHEDULER,
            ));
            for (server, config) in &found.destinations {
                let theirs = config.weight == THEIR_WEIGHT;
                there.insert((Entry::Destination(*key, *server), theirs));
            }
        }
        for (entry, theirs) in &there {
            match self.whose[entry] {
                _ if wanted.contains(entry) => {}
                Whose::Lost => {}
                Whose::Theirs => assert!(theirs, "{entry:?} is as it was made"),
                Whose::Unclear => assert!(*theirs || self.forgetful, "{entry:?} is as it was made"),
                Whose::Ours => assert!(self.forgetful, "{entry:?} of ours was left behind"),
            }
        }
        let in_whose = self
            .whose
            .keys()
            .filter(|e| !matches!(e, Entry::Address(..)));
        let entries = there.iter().map(|(entry, _)| entry);
        assert!(
            entries.eq(in_whose),
            "every entry in the table has a known owner"
        );
        assert_eq!(outcome.services, self.wish.table.len());
        for (service, destination) in &outcome.strangers {
            let entry = Entry::Destination(*service, *destination);
            assert!(
                there.contains(&(entry.clone(), true))
                    || self.forgetful
                    || self.whose[&entry] == Whose::Lost
            );
        }
    }

    fn check_addresses(&self, outcome: &Outcome) {
        for &address in self.wish.vips.keys() {
            let has_subnet = address.to_string().starts_with("192.0.2.");
            if self.holding == Holding::Take && has_subnet {
                let on = self.world.interfaces_with(address);
                assert!(!on.is_empty(), "{address} is wanted and on an interface");
                assert!(on.contains(&outcome.vips[&address]));
            }
        }
        let fresh = ModelWorld::new().parts().interfaces.clone();
        let theirs = |interface: &str, address: &IpAddr| {
            let entry = Entry::Address(*address, interface.to_owned());
            self.whose.get(&entry).copied()
        };
        for (now, before) in self.world.parts().interfaces.iter().zip(&fresh) {
            for (address, length) in &now.addresses {
                let whose = theirs(&now.name, address);
                let wanted = self.wish.vips.contains_key(address);
                match whose {
                    None => assert!(before.addresses.contains(&(*address, *length))),
                    Some(Whose::Theirs | Whose::Unclear | Whose::Lost) => {}
                    Some(Whose::Ours) => assert!(
                        wanted && self.holding != Holding::Release || self.forgetful,
                        "{address} of ours was left behind"
                    ),
                }
            }
            for (address, _) in &before.addresses {
                let still = now.addresses.iter().any(|(found, _)| found == address);
                assert!(still, "the host's own {address} is still there");
            }
        }
    }

    /// Checks the records that the new run found on the disk. Every wanted
    /// entry on the host must be ours, except addresses that other processes
    /// added.
    fn check_disk(&self) {
        let disk = self.disk.all()[0].clone();
        assert!(disk.intent.is_empty(), "no round is unsettled");
        let mut ours = wanted(&self.wish);
        for (entry, whose) in &self.whose {
            if let Entry::Address(address, on) = entry {
                let unclear = *whose == Whose::Unclear || self.forgetful;
                let owned = disk.owned.contains(entry);
                assert!(
                    unclear || owned == (*whose == Whose::Ours),
                    "{address} on {on}"
                );
                if owned {
                    ours.insert(entry.clone());
                }
            }
        }
        let (marks, owned): (BTreeSet<_>, BTreeSet<_>) = disk
            .owned
            .iter()
            .cloned()
            .partition(|entry| matches!(entry, Entry::Adopted(_)));
        assert_eq!(owned, ours);
        for mark in marks {
            let Entry::Adopted(service) = mark else {
                continue;
            };
            assert!(
                owned.contains(&Entry::Service(service)),
                "{service} is ours"
            );
        }
        let table = &self.world.parts().kernel.table;
        let owned = disk.remembered().table;
        let plan = ipvs::plan(&self.wish.table, table, &owned, OnConflict::Adopt);
        assert!(plan.is_empty() && plan.adopt.is_empty(), "{plan:?}");
        assert_eq!(plan.gone, ipvs::Gone::default());
    }
}

/// Returns the wanted entries of the kernel's table.
pub(super) fn wanted(wish: &Desired) -> BTreeSet<Entry> {
    let mut entries = BTreeSet::new();
    for (key, service) in &wish.table {
        entries.insert(Entry::Service(*key));
        for (server, _) in &service.destinations {
            entries.insert(Entry::Destination(*key, *server));
        }
    }
    entries
}
