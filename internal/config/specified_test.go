package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// specified are all variables of mirrord, each with a value that is not what holds
// anyway: but for MIRRORD_PROGRESS_MODE, MIRRORD_LS_TARGET_TYPES and
// MIRRORD_LS_RICH_OUTPUT, which the command line reads; MIRRORD_ACTIVE and
// MIRRORD_FORCE_RUN, which editors read; TRACEPARENT and BAGGAGE, which are the
// program's as much as mirrord's.
const specified = `
MIRRORD_IMPERSONATED_TARGET=pod/y
MIRRORD_TARGET_NAMESPACE=n
MIRRORD_CONFIG_FILE=other.json
MIRRORD_KUBECONFIG=k
MIRRORD_KUBE_CONTEXT=c
MIRRORD_ACCEPT_INVALID_CERTIFICATES=true
MIRRORD_KEY=ana
MIRRORD_BRANCH_NAME=b
MIRRORD_SKIP_PROCESSES=a;b
MIRRORD_SKIP_BUILD_TOOLS=false
MIRRORD_SKIP_EXTRA_BUILD_TOOLS=a
MIRRORD_SKIP_SIP=a
MIRRORD_OPERATOR_ENABLE=true
MIRRORD_MULTI_CLUSTER=true
MIRRORD_API=true
MIRRORD_TELEMETRY=true
MIRRORD_CHECK_VERSION=true
MIRRORD_PROXY=false
MIRRORD_AGENT_RUST_LOG=debug
MIRRORD_AGENT_JSON_LOG=true
MIRRORD_AGENT_NAMESPACE=n
MIRRORD_AGENT_IMAGE=i
MIRRORD_AGENT_IMAGE_REGISTRY=r
MIRRORD_AGENT_IMAGE_TAG=t
MIRRORD_AGENT_IMAGE_PULL_POLICY=Always
MIRRORD_AGENT_TTL=7
MIRRORD_EPHEMERAL_CONTAINER=true
MIRRORD_AGENT_COMMUNICATION_TIMEOUT=7
MIRRORD_AGENT_STARTUP_TIMEOUT=7
MIRRORD_AGENT_STEALER_FLUSH_CONNECTIONS=true
MIRRORD_AGENT_EXTERNAL_IP_FIX=false
MIRRORD_AGENT_EXCLUDE_FROM_MESH=true
MIRRORD_AGENT_HTTP_DETECTION_TIMEOUT=7
MIRRORD_AGENT_CLEAN_IPTABLES_ON_START=true
MIRRORD_OVERRIDE_ENV_VARS_INCLUDE=A
MIRRORD_OVERRIDE_ENV_VARS_EXCLUDE=A
MIRRORD_OVERRIDE_ENV_VARS_FILE=f
MIRRORD_ENV_LOAD_FROM_PROCESS=true
MIRRORD_FILE_MODE=write
MIRRORD_FILE_OPS=true
MIRRORD_FILE_RO_OPS=nonsense
MIRRORD_FILE_READ_WRITE_PATTERN=^/a
MIRRORD_FILE_READ_ONLY_PATTERN=^/a
MIRRORD_FILE_LOCAL_PATTERN=^/a
MIRRORD_ENABLE_IPV6=false
MIRRORD_AGENT_TCP_STEAL_TRAFFIC=true
MIRRORD_HTTP_HEADER_FILTER=a: b
MIRRORD_HTTP_PATH_FILTER=/a
MIRRORD_HTTP_METHOD_FILTER=GET
MIRRORD_HTTP_HEADER_FILTER_JQ=true
MIRRORD_HTTP_FILTER_PORTS=80
MIRRORD_OPERATOR_ON_CONCURRENT_STEAL=continue
MIRRORD_TCP_OUTGOING=false
MIRRORD_UDP_OUTGOING=false
MIRRORD_OUTGOING_REMOTE_UNIX_STREAMS=^/a
MIRRORD_REMOTE_DNS=false
MIRRORD_PREVIEW_TTL_MINS=7
MIRRORD_LOG=debug
MIRRORD_LAYER_LOG_PATH=/x
MIRRORD_LAYER_FILE=/x
MIRRORD_DONT_LOAD=1
MIRRORD_RESOLVED_CONFIG=x
MIRRORD_EXT_PRINT_CONFIG=true
MIRRORD_CONTAINER_USE_RUNTIME=podman
MIRRORD_OVERRIDE_HOSTNAME=h
MIRRORD_DETECT_DEBUGGER_PORT=debugpy
MIRRORD_IGNORE_DEBUGGER_PORTS=5005
MIRRORD_TOMCAT_SERVER_PORT=8005
`

// specifiedKeys are all keys of mirrord, and the sections that may be written short.
const specifiedKeys = `
target target.path target.namespace kubeconfig kube_context accept_invalid_certificates skip_processes skip_build_tools skip_extra_build_tools operator profile multi_cluster api telemetry use_proxy key startup_retry.min_ms startup_retry.max_ms startup_retry.max_retries sip_binaries skip_sip ci.output_dir traceparent baggage
agent.log_level agent.json_log agent.namespace agent.image agent.image_pull_policy agent.image_pull_secrets agent.ttl agent.ephemeral agent.communication_timeout agent.startup_timeout agent.flush_connections agent.disabled_capabilities agent.tolerations agent.resources agent.check_out_of_pods agent.privileged agent.external_ip_fix agent.nftables agent.dns.timeout agent.dns.attempts agent.labels agent.annotations agent.node_selector agent.service_account agent.metrics agent.exclude_from_mesh agent.disable_mesh_sidecar_injection agent.priority_class agent.inject_headers agent.override_cache_control agent.max_body_buffer_size agent.max_body_buffer_timeout agent.http_detection_timeout agent.security_context.app_armor_profile agent.security_context.seccomp_profile agent.clean_iptables_on_start agent.jaq_time_limit
feature.env feature.env.include feature.env.exclude feature.env.override feature.env.unset feature.env.env_file feature.env.mapping feature.env.load_from_process feature.fs feature.fs.mode feature.fs.read_write feature.fs.read_only feature.fs.local feature.fs.not_found feature.fs.mapping feature.fs.readonly_file_buffer feature.network feature.network.ipv6 feature.network.incoming feature.network.incoming.mode feature.network.incoming.http_filter feature.network.incoming.http_filter.header_filter feature.network.incoming.http_filter.path_filter feature.network.incoming.http_filter.method_filter feature.network.incoming.http_filter.header_filter_jq feature.network.incoming.http_filter.body_filter feature.network.incoming.http_filter.all_of feature.network.incoming.http_filter.any_of feature.network.incoming.http_filter.ports feature.network.incoming.port_mapping feature.network.incoming.listen_ports feature.network.incoming.ports feature.network.incoming.ignore_ports feature.network.incoming.ignore_localhost feature.network.incoming.on_concurrent_steal feature.network.incoming.tls_delivery feature.network.incoming.https_delivery feature.network.outgoing feature.network.outgoing.tcp feature.network.outgoing.udp feature.network.outgoing.ignore_localhost feature.network.outgoing.filter feature.network.outgoing.unix_streams feature.network.dns feature.network.dns.enabled feature.network.dns.filter feature.hostname feature.copy_target feature.copy_target.enabled feature.copy_target.scale_down feature.copy_target.exclude_containers feature.copy_target.exclude_init_containers feature.split_queues feature.db_branches feature.preview.image feature.preview.ttl_mins feature.preview.ttl_secs feature.preview.creation_timeout_secs feature.preview.replicas feature.preview.labels feature.preview.idle feature.preview.config_mounts feature.preview.secret_mounts feature.magic.aws feature.magic.auto_mount feature.magic.turbo
internal_proxy.start_idle_timeout internal_proxy.idle_timeout internal_proxy.socket_timeout internal_proxy.ping_interval internal_proxy.log_level internal_proxy.log_destination internal_proxy.json_log internal_proxy.process_logging_interval external_proxy.start_idle_timeout external_proxy.idle_timeout external_proxy.socket_timeout external_proxy.ping_interval external_proxy.log_level external_proxy.log_destination external_proxy.json_log external_proxy.process_logging_interval external_proxy.tls_enable external_proxy.host_ip container.cli_image container.cli_extra_args container.cli_prevent_cleanup container.cli_image_lib_path container.cli_tls_path container.override_host_ip container.host_gateway_detection container.platform
experimental.tcp_ping4_mock experimental.enable_exec_hooks_linux experimental.hide_ipv6_interfaces experimental.disable_reuseaddr experimental.use_dev_null experimental.idle_local_http_connection_timeout experimental.ignore_system_proxy_config experimental.trust_any_certificate experimental.applev experimental.sip_utils experimental.sip_log_destination experimental.browser_extension_config experimental.dlopen_cgo experimental.go_asmcgocall experimental.guard_std_fds experimental.non_blocking_tcp_connect experimental.latency
`

// TestSpecifiedKeys: each is a key here, or a section.
func TestSpecifiedKeys(t *testing.T) {
	s := newSchema()
	for name := range strings.FieldsSeq(specifiedKeys) {
		if s.keys[name] == nil && s.children[name] == nil {
			t.Errorf("there is no key %s", name)
		}
	}
}

// TestSpecifiedVariables: each changes what happens, or one note names it.
func TestSpecifiedVariables(t *testing.T) {
	load := func(environ string) (Config, string, error) {
		file := "key: k\nkube_context: \"{{ key }}-{{ git_branch | default(value='none') }}\"\ntarget: pod/x\n"
		cfg, notes, err := Load(pair{parts: map[string]string{partEnviron: environ, ".mirrord/mirrord.yaml": file}}.sources(t))
		return cfg, fmt.Sprint(notes), err
	}
	before, _, err := load("")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(strings.TrimSpace(specified)) {
		name, _, _ := strings.Cut(line, "=")
		cfg, notes, err := load(line)
		if err == nil && cmp.Equal(cfg, before) && strings.Count(notes, name) != 1 {
			t.Errorf("%s changes nothing, and nothing is said: %s", name, notes)
		}
	}
}
