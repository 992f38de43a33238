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
