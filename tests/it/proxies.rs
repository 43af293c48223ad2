//! Real reverse proxies in front, with Doorward deciding: the files of deploy/examples as they are
//! shipped, only the addresses in them replaced.
//!
//! Every behaviour is run through every proxy. What counts is what arrived at the application.

mod caddy;
mod decisions;
mod envoy;
mod examples;
mod front;
mod haproxy;
mod identity;
mod nginx;
mod outages;
mod stage;
mod upgrades;

use stage::Stage;

/// Declares every behaviour as a test of one proxy.
macro_rules! behaves {
    ($name:ident: $proxy:expr) => {
        mod $name {
            use super::{Stage, decisions, identity, outages, upgrades};

            #[tokio::test]
            async fn the_application_is_told_who_calls() {
                let stage = Stage::start($proxy).await;
                identity::sessions_made_through_the_proxy_are_named(&stage).await;
                identity::what_needs_nobody_names_nobody(&stage).await;
                identity::credentials_end_at_the_proxy(&stage).await;
                identity::a_nomination_removes_no_identity(&stage).await;
            }

            #[tokio::test]
            async fn no_forged_identity_arrives_in_any_spelling() {
                let stage = Stage::start($proxy).await;
                identity::no_forged_identity_arrives_together(&stage).await;
                identity::no_forged_identity_arrives_alone(&stage).await;
                if stage.proxy.http2 {
                    identity::no_forged_identity_arrives_over_http2(&stage).await;
                }
            }

            #[tokio::test]
            async fn rules_decide_as_behind_doorward_itself() {
                let stage = Stage::start($proxy).await;
                decisions::refusals_are_shown_and_nothing_arrives(&stage).await;
                decisions::rules_hold_for_their_methods(&stage).await;
                decisions::errors_of_the_application_pass(&stage).await;
                decisions::bodies_arrive_whole(&stage).await;
                decisions::a_session_ends_at_once(&stage).await;
                decisions::web_sockets_are_guarded(&stage).await;
            }

            #[tokio::test]
            async fn nobody_talks_the_proxy_into_another_path() {
                let stage = Stage::start($proxy).await;
                decisions::what_clients_say_of_the_request_changes_nothing(&stage).await;
                decisions::tricks_with_paths_open_nothing(&stage).await;
                decisions::paths_arrive_as_they_were_sent(&stage).await;
            }

            #[tokio::test]
            async fn only_web_sockets_get_a_connection_of_their_own() {
                let stage = Stage::start($proxy).await;
                upgrades::other_upgrades_open_no_tunnel(&stage).await;
                upgrades::web_sockets_still_open(&stage).await;
            }

            #[tokio::test]
            async fn what_clients_say_of_connection_trace_and_session_ends_at_the_proxy() {
                let stage = Stage::start($proxy).await;
                upgrades::nominations_end_at_the_proxy(&stage).await;
                upgrades::traces_of_clients_end_at_the_proxy(&stage).await;
                upgrades::sessions_in_several_cookie_lines_end_at_the_proxy(&stage).await;
            }

            #[tokio::test]
            async fn outages_let_nothing_through() {
                let mut stage = Stage::start($proxy).await;
                outages::without_an_answer_nothing_arrives(&mut stage).await;
                outages::without_doorward_nothing_arrives(&mut stage).await;
                outages::without_the_store_sessions_are_unknown(&mut stage).await;
            }
        }
    };
}

behaves!(through_nginx: &super::nginx::NGINX);
behaves!(through_caddy: &super::caddy::CADDY);
behaves!(through_haproxy: &super::haproxy::HAPROXY);
behaves!(through_envoy_over_http: &super::envoy::HTTP);
behaves!(through_envoy_over_grpc: &super::envoy::GRPC);

#[tokio::test]
async fn over_grpc_doorward_itself_removes_what_clients_forge() {
    let stage = Stage::start(&envoy::GRPC_ALONE).await;
    identity::what_needs_nobody_names_nobody(&stage).await;
    identity::credentials_end_at_the_proxy(&stage).await;
    identity::no_forged_identity_arrives_together(&stage).await;
    identity::no_forged_identity_arrives_alone(&stage).await;
    identity::no_forged_identity_arrives_over_http2(&stage).await;
    decisions::what_clients_say_of_the_request_changes_nothing(&stage).await;
    decisions::web_sockets_are_guarded(&stage).await;
}
