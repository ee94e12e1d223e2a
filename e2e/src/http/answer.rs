//! Reads an HTTP answer for the test client.

use std::io::{self, BufRead, BufReader, Read};

use super::patient::Patient;

/// An HTTP answer whose head the client has read.
pub(super) struct Answer {
    pub(super) server: String,
    pub(super) length: u64,
    pub(super) body: BufReader<Patient>,
}

impl Answer {
    pub(super) fn read(stream: Patient) -> io::Result<Self> {
        let mut answer = Self {
            server: String::new(),
            length: 0,
            body: BufReader::new(stream),
        };
        let status = read_line(&mut answer.body)?;
        if status.split(' ').nth(1) != Some("200") {
            return Err(io::Error::other(format!("the server answered: {status}")));
        }
        loop {
            let line = read_line(&mut answer.body)?;
            match line.split_once(": ") {
                Some(("Server", server)) => server.clone_into(&mut answer.server),
                Some(("Content-Length", length)) => {
                    answer.length = length.parse().map_err(io::Error::other)?;
                }
                Some(_) => {}
                None => return Ok(answer),
            }
        }
    }

    /// Reads and returns the whole body of the HTTP answer.
    pub(super) fn page(mut self) -> io::Result<String> {
        let mut page = String::new();
        self.body.read_to_string(&mut page)?;
        if page.len() as u64 == self.length {
            Ok(page)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end().len());
    Ok(line)
}
