use crds::Probe;
use hyper::server::conn;
use hyper_util::{rt::TokioExecutor, service::TowerToHyperService};
use tonic_health::{ServingStatus::NotServing, server::health_reporter};

use super::*;
use crate::probe::fixtures::{
    SOON, closed, resets, said, said_within, says, says_and_waits, serve, silent,
};

fn health(service: &str) -> Probe {
    Probe::Grpc {
        service: service.to_owned(),
    }
}

/// Starts a gRPC server that reports itself as serving, but reports its service
/// `shop.Cart` as not serving.
async fn server() -> SocketAddr {
    let (reporter, health) = health_reporter();
    reporter.set_service_status("shop.Cart", NotServing).await;
    serve(move |stream| {
        let service = TowerToHyperService::new(health.clone());
        async move {
            let connection = conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            // The connection ends with an error, because the probe resets it.
            let _ = connection.await;
        }
    })
    .await
}

#[tokio::test]
async fn a_service_is_good_when_it_is_serving() {
    let server = server().await;
    assert_eq!(said(health(""), server).await, "success");
    assert_eq!(said(health("shop.Cart"), server).await, "gRPC NOT_SERVING");
    assert_eq!(
        said(health("shop.Order"), server).await,
        "gRPC NOT_FOUND: service not registered"
    );
}

#[tokio::test]
async fn what_is_not_an_answer_is_a_failure() {
    assert_eq!(said(health(""), closed().await).await, "connection refused");
    assert_eq!(said(health(""), resets().await).await, "connection closed");
    let (_held, address) = silent().await;
    assert_eq!(
        said_within(SOON, health(""), address).await,
        "no answer in 0.3 s"
    );
    assert_eq!(
        said_within(SOON, health(""), says_and_waits("").await).await,
        "connected, and no answer in 0.3 s"
    );
}

#[tokio::test]
async fn a_server_that_does_not_speak_grpc_is_a_failure() {
    let http1 = says("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert_eq!(said(health(""), http1).await, "connection closed");
    let other = says_and_waits("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let words = said(health(""), other).await;
    assert!(words.starts_with("the answer is not gRPC: "), "{words}");
}

#[tokio::test]
async fn nothing_is_left_of_a_probe_whose_time_is_over() {
    let address = says_and_waits("").await;
    let before = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    said_within(SOON, health(""), address).await;
    tokio::task::yield_now().await;
    let after = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    assert_eq!(before, after);
}
