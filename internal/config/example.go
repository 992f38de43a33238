package config

import "strconv"

// Example is a value that the key may have, in the shape of JSON; nil: there is
// none to show.
func (k *Key) Example() any {
	if e, ok := examples[k.Name]; ok {
		return e
	}
	switch k.Type {
	case Bool:
		return k.Default != "true"
	case Number:
		if n, err := strconv.ParseInt(k.Default, 10, 64); err == nil {
			return n
		}
		return 60
	case Choice:
		for _, c := range k.Choices() {
			if c != k.Default {
				return c
			}
		}
	}
	return nil
}

// examples are those of keys whose type says too little.
var examples = map[string]any{
	"target.path":            "deployment/shop",
	"target.namespace":       "staging",
	"kubeconfig":             "~/.kube/staging",
	"kube_context":           "staging",
	"key":                    "ana",
	"skip_processes":         []any{"git", "make"},
	"skip_extra_build_tools": []any{"bazel"},
	"profile":                "shop",
	"sip_binaries":           []any{"/usr/bin/make"},
	"skip_sip":               []any{"git"},
	"ci.output_dir":          "/tmp/mirrord",
	"traceparent":            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	"baggage":                "mirrord-session=ana",

	"agent.namespace":             "tools",
	"agent.image":                 "registry.corp.example/mirrord-agent:1.0",
	"agent.image.registry":        "registry.corp.example/mirrord-agent",
	"agent.image.tag":             "1.0",
	"agent.image_pull_secrets":    []any{object{"name": "registry"}},
	"agent.log_level":             "debug",
	"agent.disabled_capabilities": []any{"NET_ADMIN"},
	"agent.tolerations":           []any{object{"key": "dedicated", "operator": "Exists"}},
	"agent.resources.requests":    object{"cpu": "10m", "memory": "32Mi"},
	"agent.resources.limits":      object{"cpu": 1, "memory": "192Mi"},
	"agent.labels":                object{"team": "shop"},
	"agent.annotations":           object{"cost-center": "42"},
	"agent.node_selector":         object{"kubernetes.io/os": "linux"},
	"agent.service_account":       "mirrord",
	"agent.metrics":               "0.0.0.0:9000",
	"agent.priority_class":        "low",
	"agent.security_context.app_armor_profile.localhost_profile": "mirrord",
	"agent.security_context.seccomp_profile.localhost_profile":   "profiles/mirrord.json",

	"feature.env.include":   []any{"DB_*", "REGION"},
	"feature.env.exclude":   []any{"OTEL_*", "PORT"},
	"feature.env.override":  object{"LOG_LEVEL": "debug"},
	"feature.env.unset":     []any{"HTTP_PROXY"},
	"feature.env.env_file":  ".env",
	"feature.env.mapping":   object{"_TIMEOUT$": "600"},
	"feature.fs.read_write": []any{"^/var/lib/shop/"},
	"feature.fs.read_only":  []any{"^/etc/shop/"},
	"feature.fs.local":      []any{`\.cache/`},
	"feature.fs.not_found":  []any{`^/etc/shop/local\.yaml$`},
	"feature.fs.mapping":    object{"^/srv/(.*)": "/tmp/srv/$1"},
	"feature.fs.cache":      10,

	"feature.network.incoming.ports":                        []any{80, 8080},
	"feature.network.incoming.ignore_ports":                 []any{9090},
	"feature.network.incoming.port_mapping":                 []any{[]any{8080, 80}},
	"feature.network.incoming.listen_ports":                 []any{[]any{80, 8080}},
	"feature.network.incoming.http_filter.header_filter":    "^x-user: ana$",
	"feature.network.incoming.http_filter.path_filter":      "^/api/",
	"feature.network.incoming.http_filter.method_filter":    "POST",
	"feature.network.incoming.http_filter.host_filter":      `^shop\.example$`,
	"feature.network.incoming.http_filter.client_filter":    "10.8.0.0/16",
	"feature.network.incoming.http_filter.sni_filter":       `^admin\.`,
	"feature.network.incoming.http_filter.all_of":           []any{object{"header": "^x-user: ana$"}, object{"method": "POST"}},
	"feature.network.incoming.http_filter.any_of":           []any{object{"path": "^/api/"}, object{"not": object{"method": "GET"}}},
	"feature.network.incoming.http_filter.not":              object{"path": "^/health$"},
	"feature.network.incoming.http_filter.ports":            []any{80},
	"feature.network.incoming.http_filter.header_filter_jq": `. == "x-user: ana"`,
	"feature.network.incoming.http_filter.body_filter":      object{"body": "json", "query": "$.user", "matches": "^ana$"},
	"feature.network.incoming.tls.certificate":              []any{"/etc/tls/tls.crt"},
	"feature.network.incoming.tls.key":                      []any{"/etc/tls/tls.key"},
	"feature.network.incoming.tls.client_ca":                "/etc/tls/ca.crt",
	"feature.network.incoming.tls.client_certificate":       "/etc/tls/client.crt",
	"feature.network.incoming.tls.client_key":               "/etc/tls/client.key",
	"feature.network.incoming.tls_delivery.trust_roots":     []any{"ca.pem"},
	"feature.network.incoming.tls_delivery.server_name":     "shop.example",
	"feature.network.incoming.tls_delivery.server_cert":     "shop.pem",
	"feature.network.incoming.https_delivery.trust_roots":   []any{"ca.pem"},
	"feature.network.incoming.https_delivery.server_name":   "shop.example",
	"feature.network.incoming.https_delivery.server_cert":   "shop.pem",
	"feature.network.outgoing.filter.local":                 []any{"localhost:5432", "*.corp.example"},
	"feature.network.outgoing.filter.remote":                []any{"db.shop:5432", "10.0.0.0/8"},
	"feature.network.outgoing.unix_streams":                 []any{`^/var/run/app\.sock$`},
	"feature.network.dns.filter.local":                      []any{"*.corp.example"},
	"feature.network.dns.filter.remote":                     []any{"db.shop"},

	"feature.copy_target.exclude_containers":      []any{"worker"},
	"feature.copy_target.exclude_init_containers": []any{"migrate"},
	"feature.split_queues":                        object{"orders": object{"queue_type": "SQS", "message_filter": object{"user": "^ana$"}}},
	"feature.db_branches": []any{object{"id": "shop", "type": "pg", "version": "16",
		"connection": object{"url": object{"type": "env", "variable": "DATABASE_URL"}}}},
	"feature.preview.image":    "shop:dev",
	"feature.preview.ttl_mins": 60,
	"feature.preview.ttl_secs": 3600,
	"feature.preview.labels":   object{"team": "shop"},
	"feature.preview.idle":     object{"start_idle": true},

	"internal_proxy.log_level":       "mirrord=info,warn",
	"internal_proxy.log_destination": "/tmp/mirrord/",
	"external_proxy.log_level":       "mirrord=info,warn",
	"external_proxy.log_destination": "/tmp/mirrord/",
	"external_proxy.host_ip":         "192.0.2.1",
	"container.cli_image":            "registry.corp.example/mirrord-cli:3.250.0",
	"container.cli_extra_args":       []any{"--memory=1g"},
	"container.cli_image_lib_path":   "/opt/mirrord/lib/libmirrord_layer.so",
	"container.cli_tls_path":         "/opt/mirrord/tls/mirrord-tls.pem",
	"container.override_host_ip":     "192.0.2.1",
	"container.platform":             "linux/amd64",

	"experimental.sip_log_destination": "/tmp/sip.log",
}
