# The end-to-end cluster. Included by the Makefile at the top of the repository.
# CLUSTER_ID chooses another than the default one; IMAGES= leaves the Debian image out.
NODES ?= 2
IMAGES ?= debian
CLUSTER := test/cluster/cluster

.PHONY: cluster-up cluster-down cluster-smoke
cluster-up: build ## a real cluster (NODES=2), this build's agent image loaded; prints the kubeconfig's path last
	@$(CLUSTER) up $(NODES)
	@{ bin/mirrord agent image --output bin/agent-image.tar && $(CLUSTER) load bin/agent-image.tar; } >&2
	@[ -z "$(IMAGES)" ] || $(CLUSTER) load $(IMAGES) >&2
	@$(CLUSTER) kubeconfig

cluster-down: ## stops it; nothing stays but the build cache
	@$(CLUSTER) down

cluster-smoke: ## checks all that tests lean on, in a cluster of its own
	@DEBIAN=1 test/cluster/smoke $(NODES)
