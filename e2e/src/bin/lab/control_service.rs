//! Carries out the guest's requests to the host side and to the nodes
//! (`e2e::control`).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, bail};
use e2e::control::{Request, Response, Switch, Tool};
use e2e::layout::Which;
use e2e::layout::{control_service, node_service};

use crate::clusters::Clusters;
use crate::go_programs::administrator;
use crate::kubectl;

/// Starts the control service, which listens at the host side's address until
/// the lab ends.
pub(crate) fn start(clusters: Option<Arc<Clusters>>) -> Result<()> {
    listen(control_service(), move |request| {
        answer(request, clusters.as_deref())
    })
}

/// Starts the control service of a node, which runs commands there.
pub(crate) fn start_on_node(number: u8) -> Result<()> {
    listen(node_service(number), |request| match request {
        Request::OnNode { on_node } => {
            let (program, args) = on_node.split_first().context("no command")?;
            run_program(Command::new(program).args(args), "").context(program.clone())
        }
        _ => bail!("a node only runs commands"),
    })
}

type Answer = dyn Fn(&Request) -> Result<Response> + Send + Sync;

fn listen(
    address: SocketAddr,
    answer: impl Fn(&Request) -> Result<Response> + Send + Sync + 'static,
) -> Result<()> {
    let listener = TcpListener::bind(address).context("the control service")?;
    let answer: Arc<Answer> = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                if let Err(error) = serve(stream, &*answer) {
                    eprintln!("lab: the control service: {error:#}");
                }
            });
        }
    });
    Ok(())
}

fn serve(mut stream: TcpStream, answer: &Answer) -> Result<()> {
    let mut request = Vec::new();
    stream.read_to_end(&mut request)?;
    let request = serde_json::from_slice(&request).context("a request that cannot be parsed")?;
    let response = answer(&request).unwrap_or_else(|error| Response {
        status: -1,
        stdout: String::new(),
        stderr: format!("{error:#}"),
    });
    stream.write_all(&serde_json::to_vec(&response)?)?;
    Ok(())
}

fn answer(request: &Request, clusters: Option<&Clusters>) -> Result<Response> {
    let clusters = clusters.context("this lab was started without an API server")?;
    match request {
        Request::Run { run, args, stdin } => {
            let program = match run {
                Tool::Kubectl if kubectl::can_serve(args) => {
                    return kubectl::run(args, stdin).context("kubectl");
                }
                Tool::Kubectl => "kubectl",
                Tool::Helm => "helm",
            };
            let mut command = administrator(Which::First, program);
            run_program(command.args(args), stdin).context(program)
        }
        Request::ApiServer { apiserver, cluster } => {
            let api_server = match cluster {
                Which::First => &clusters.first,
                Which::Other => &clusters.other,
            };
            match apiserver {
                Switch::Start => api_server.start()?,
                Switch::Stop => api_server.stop()?,
                Switch::Lose => api_server.lose_everything()?,
                Switch::BackUp => api_server.back_up()?,
                Switch::Restore => api_server.restore()?,
            }
            Ok(done())
        }
        Request::NamespaceController { namespaces } => {
            match namespaces {
                Switch::Start => clusters.namespaces.start()?,
                Switch::Stop | Switch::Lose => clusters.namespaces.stop()?,
                Switch::BackUp | Switch::Restore => {
                    bail!("the namespace controller stores nothing")
                }
            }
            Ok(done())
        }
        Request::OnNode { .. } => bail!("the host side is no node"),
    }
}

fn run_program(command: &mut Command, input: &str) -> Result<Response> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().expect("standard input was asked for");
    // A separate thread writes the program's input, because the program may
    // write output before it has read all input.
    let (output, written) = thread::scope(|scope| {
        let writer = scope.spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output();
        (output, writer.join().expect("the writer does not panic"))
    });
    let output = output?;
    match written {
        // A broken pipe is not an error, because a program may end before it
        // has read all of its input.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    Ok(Response {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn done() -> Response {
    Response {
        status: 0,
        stdout: String::new(),
        stderr: String::new(),
    }
}
