//! Uploads and downloads that go on while a test disturbs the director.

use crate::{Client, Download, Upload, eventually, wait::PATIENCE};

/// Uploads to the two servers, and the same number of downloads from them.
#[derive(Debug)]
pub struct Transfers {
    downloads: Vec<Download>,
    uploads: Vec<Upload>,
}

impl Transfers {
    /// The rate of each transfer, in bytes per second.
    const RATE: u64 = 40_000;
    /// The size of each download, large enough to last for hours at `RATE`.
    const BYTES: u64 = 1 << 30;

    /// Begins `of_each` downloads and as many uploads through a VIP such as
    /// `192.168.4.5:80`.
    ///
    /// # Panics
    /// Panics if a transfer does not begin, or if the first two downloads come
    /// from one server.
    #[track_caller]
    pub fn begin(browser: &Client, vip: &str, of_each: usize) -> Self {
        let browser = browser.clone().with_timeout(PATIENCE);
        let download = |_| browser.download(vip, Self::BYTES, Self::RATE);
        let downloads: Vec<_> = (0..of_each)
            .map(download)
            .collect::<Result<_, _>>()
            .expect("the downloads begin");
        assert_ne!(
            downloads[0].server(),
            downloads[1].server(),
            "each server must get one download"
        );
        let upload = |_| browser.upload(vip, Self::RATE);
        let uploads = (0..of_each)
            .map(upload)
            .collect::<Result<_, _>>()
            .expect("the uploads begin");
        Self { downloads, uploads }
    }

    /// Waits until each upload and download has moved more bytes than any
    /// buffer can hold.
    ///
    /// # Panics
    /// Panics if a transfer was cut, or does not move in time.
    #[track_caller]
    pub fn expect_to_move(&self, when: &str) {
        let before = self.moved();
        eventually(&format!("transfers to move {when}"), PATIENCE, || {
            let now = self.moved();
            let slowest = now.iter().zip(&before).map(|(now, before)| now - before);
            match slowest.min() {
                Some(bytes) if bytes >= Self::RATE => Ok(()),
                _ => Err(format!("{before:?}, then {now:?}")),
            }
        });
        let run = self.downloads.iter().all(Download::is_running);
        assert!(run, "a download was cut {when}");
        assert!(
            self.uploads.iter().all(Upload::is_running),
            "an upload was cut {when}"
        );
    }

    fn moved(&self) -> Vec<u64> {
        let down = self.downloads.iter().map(Download::received);
        down.chain(self.uploads.iter().map(Upload::sent)).collect()
    }

    /// Ends the uploads, and asserts that the servers have received every sent
    /// byte.
    ///
    /// # Panics
    /// Panics if an upload fails.
    pub fn finish(self) {
        for upload in self.uploads {
            let sent = upload.sent();
            let got = upload.finish().expect("the upload ends");
            assert!(got >= sent, "{got} of at least {sent} bytes arrived");
        }
    }
}
