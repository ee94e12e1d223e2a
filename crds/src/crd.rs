//! The CustomResourceDefinitions of the API.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::api::{Director, DirectorGroup, RealServer, VirtualService};

/// All of them, as the chart installs them.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        VirtualService::crd(),
        RealServer::crd(),
        DirectorGroup::crd(),
        Director::crd(),
    ]
}
