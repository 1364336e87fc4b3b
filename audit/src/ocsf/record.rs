//! The record: every member that any of our classes has, in the order in which it is written.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::names::{Id, Kind};
use super::objects::{
    Actor, Api, ConnectionInfo, Device, Endpoint, FindingInfo, Resource, Traffic, Unmapped, User,
};
use super::{LOG_VERSION, OCSF_VERSION, Stamp};
use crate::Producer;
use crate::text::{self, Cutter};

/// What the mapping of every event needs.
pub(super) struct Context<'a> {
    pub(super) stamp: &'a Stamp,
    pub(super) producer: &'a Producer,
    pub(super) cutter: &'a Cutter,
}

const LOG_NAME: &str = "grantd.audit";
const PROFILES: [&str; 2] = ["host", "security_control"];
const CONTAINER_PROFILES: [&str; 3] = ["container", "host", "security_control"];

#[derive(Serialize)]
pub(super) struct Product<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) vendor_name: &'static str,
    pub(super) version: Cow<'a, str>,
}

#[derive(Serialize)]
pub(super) struct Metadata<'a> {
    sequence: u64,
    #[serde(serialize_with = "hyphenated")]
    uid: Uuid,
    version: &'static str,
    log_name: &'static str,
    log_version: &'static str,
    product: Product<'a>,
    profiles: &'static [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) correlation_uid: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_false")]
    is_truncated: bool,
}

/// Members that are absent are not known or have no meaning for the class.
#[derive(Serialize)]
pub(super) struct Record<'a> {
    pub(super) metadata: Metadata<'a>,
    time: u64,
    category_uid: u32,
    category_name: &'static str,
    class_uid: u32,
    class_name: &'static str,
    activity_id: u32,
    pub(super) activity_name: &'static str,
    type_uid: u32,
    type_name: &'static str,
    severity_id: u32,
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status_code: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status_detail: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disposition_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disposition: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) is_alert: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) end_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) duration: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) actor: Option<Actor<'a>>,
    device: Device<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) src_endpoint: Option<Endpoint<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dst_endpoint: Option<Endpoint<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connection_info: Option<ConnectionInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) traffic: Option<Traffic>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<User<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) privileges: Option<Vec<Cow<'a, str>>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) resources: Vec<Resource<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) api: Option<Api<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) app: Option<Product<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) finding_info: Option<FindingInfo<'a>>,
    #[serde(skip_serializing_if = "Unmapped::is_empty")]
    pub(super) unmapped: Unmapped<'a>,
}

impl<'a> Context<'a> {
    /// A record of that kind with its base members.
    pub(super) fn record(&self, kind: &Kind, severity: Id, status: Id) -> Record<'a> {
        let metadata = Metadata {
            sequence: self.stamp.sequence,
            uid: self.stamp.uid,
            version: OCSF_VERSION,
            log_name: LOG_NAME,
            log_version: LOG_VERSION,
            product: self.product(),
            profiles: &PROFILES,
            correlation_uid: None,
            is_truncated: false,
        };
        Record {
            metadata,
            time: self.stamp.time_ms,
            category_uid: kind.category.0,
            category_name: kind.category.1,
            class_uid: kind.class.0,
            class_name: kind.class.1,
            activity_id: kind.activity.0,
            activity_name: kind.activity.1,
            type_uid: kind.type_uid(),
            type_name: kind.type_name,
            severity_id: severity.0,
            severity: severity.1,
            status_id: Some(status.0),
            status: Some(status.1),
            status_code: None,
            status_detail: None,
            action_id: None,
            action: None,
            disposition_id: None,
            disposition: None,
            message: None,
            is_alert: None,
            count: None,
            start_time: None,
            end_time: None,
            duration: None,
            actor: None,
            device: Device::of(self),
            src_endpoint: None,
            dst_endpoint: None,
            connection_info: None,
            traffic: None,
            user: None,
            privileges: None,
            resources: Vec::new(),
            api: None,
            app: None,
            finding_info: None,
            unmapped: Unmapped::default(),
        }
    }

    /// The program that writes the record.
    pub(super) fn product(&self) -> Product<'a> {
        let producer = self.producer;
        Product {
            name: self.cutter.cut(&producer.product, text::ID),
            vendor_name: "grantd",
            version: self.cutter.cut(&producer.version, text::ID),
        }
    }
}

impl Record<'_> {
    /// What was done about it.
    pub(super) fn judged(mut self, action: Id, disposition: Id) -> Self {
        self.action_id = Some(action.0);
        self.action = Some(action.1);
        self.disposition_id = Some(disposition.0);
        self.disposition = Some(disposition.1);
        self
    }

    /// Adds what is known only once everything is mapped.
    pub(super) fn finish(mut self, cutter: &Cutter) -> Self {
        self.metadata.is_truncated = cutter.has_cut();
        if self.actor.as_ref().is_some_and(Actor::has_container) {
            self.metadata.profiles = &CONTAINER_PROFILES;
        }
        self
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde's skip_serializing_if hands a reference"
)]
fn is_false(flag: &bool) -> bool {
    !*flag
}

fn hyphenated<S: Serializer>(uid: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(uid.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
}
