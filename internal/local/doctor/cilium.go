package doctor

import (
	"context"

	"github.com/mirrord-go/mirrord/internal/failure"
	"github.com/mirrord-go/mirrord/internal/local/kube"
)

// cilium says what the cluster's Cilium does with connections before the target's
// network sees them.
func (d *doctor) cilium(ctx context.Context, c *kube.Cluster, t *kube.Target) {
	settings, err := c.CiliumSettings(ctx)
	switch f := failure.From(err); {
	case ctx.Err() != nil:
	case err != nil:
		d.o.Show(Check{Area: d.area, Name: ciliumCheck, State: Skipped, Text: "it is the nodes' network; its settings are not known: " + f.What,
			Do: "see docs/meshes.md for those that matter: kubectl get configmap cilium-config -n kube-system -o yaml"})
	default:
		d.o.Show(judgeCilium(d.area, settings, t != nil && t.Mesh() != ""))
	}
}

const ciliumCheck = "Cilium"

// judgeCilium is the check of Cilium's settings (its cilium-config), for a target
// behind a mesh's proxy or not.
func judgeCilium(area string, settings map[string]string, meshed bool) Check {
	on := func(key string) bool { return settings[key] == "true" }
	replaces := on("kube-proxy-replacement") || settings["kube-proxy-replacement"] == "strict"
	sockets := replaces || on("bpf-lb-sock") || on("enable-host-reachable-services")
	check := Check{Area: area, Name: ciliumCheck, State: Good}
	switch {
	case on("sockops-enable"):
		check.State = Skipped
		check.Text = "it joins the sockets of pods on one node (sockops-enable): what they send each other is in no packet, so that copies lack it; stealing has it"
		check.Do = "steal, or copy with feature.network.incoming.lossless; or have sockops-enable switched off"
	case meshed && sockets && !on("bpf-lb-sock-hostns-only"):
		check.State = Skipped
		check.Text = "it translates services when a program in a pod connects (socket-level load balancing), so that the mesh's proxy sees pods instead of services, of the target's connections and the program's alike"
		check.Do = "have Cilium leave pods alone, as the mesh's installation asks for: socketLB.hostNamespaceOnly=true"
	case sockets && !on("bpf-lb-sock-hostns-only"):
		check.Text = "it translates services when a program connects (socket-level load balancing); the program's connections are translated like the target's, and what reaches the target is as without it"
	case sockets:
		check.Text = "it translates services at the nodes' own sockets and on the way out of pods; what reaches the target is as without it"
	default:
		check.Text = "it translates no services when programs connect"
	}
	return check
}
