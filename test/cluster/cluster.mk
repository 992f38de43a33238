# The end-to-end cluster. Included by the Makefile at the top of the repository.
# CLUSTER_ID chooses another than the default one; IMAGES= leaves the Debian image out.
NODES ?= 2
IMAGES ?= debian
CLUSTER := test/cluster/cluster

.PHONY: cluster-up cluster-load cluster-down cluster-smoke
cluster-up: ## a real cluster (NODES=2), the images loaded; prints the kubeconfig's path last
	@$(CLUSTER) up $(NODES)
	@$(MAKE) --no-print-directory cluster-load >&2
	@$(CLUSTER) kubeconfig

cluster-load: # the agent of this build, and what tests run in pods
	@if [ -x bin/mirrord ]; then bin/mirrord agent image --output bin/agent-image.tar && $(CLUSTER) load bin/agent-image.tar; fi
	@[ -z "$(IMAGES)" ] || $(CLUSTER) load $(IMAGES)

cluster-down: ## stops it; nothing stays but the build cache
	@$(CLUSTER) down

cluster-smoke: ## checks all that tests lean on, in a cluster of its own
	@DEBIAN=1 test/cluster/smoke $(NODES)
