# What people type. `make help` lists the targets; the variables are those of the upstream image-builder.
IMAGE_TYPE ?= iso
DISTRO     ?= debian_bookworm
WORKDIR    ?= config
OUTPUT_DIR ?= out
BUNDLES    ?= $(notdir $(wildcard $(WORKDIR)/qcow-bundle/*))
BUILD_FLAGS ?=
# LOCKED=1 insists on the lock files beside the bundles.
LOCKED     ?=
LOCK_FLAGS ?=
# Where the builder runs: auto (in a container where there is one for it), embedded or docker.
ENGINE     ?= auto
PROXY      ?=
NO_PROXY   ?=

# The builder's image: DOCKER_REGISTRY/IMAGE_PREFIX/IMAGE_NAME:IMAGE_TAG-<its base, or DISTRO where that is given>.
DOCKER_REGISTRY ?= localhost
IMAGE_PREFIX    ?= airshipit
IMAGE_NAME      ?= image-builder
IMAGE_TAG       ?= latest
BUILDER_DISTRO  ?= ubuntu
PUSH_IMAGE      ?= false
COMMIT          ?= $(shell git rev-parse HEAD 2>/dev/null)
LABEL           ?= org.airshipit.build=community
BUILDER_RELEASE = $(if $(filter debian,$(BUILDER_DISTRO)),debian_trixie,ubuntu_noble)
IMAGE_DISTRO   := $(if $(filter file,$(origin DISTRO)),,$(DISTRO))
IMAGE           ?= $(DOCKER_REGISTRY)/$(IMAGE_PREFIX)/$(IMAGE_NAME):$(IMAGE_TAG)-$(or $(IMAGE_DISTRO),$(BUILDER_RELEASE))
BUILDER_VARIABLES = IMAGE="$(IMAGE)" BUILDER_DISTRO="$(BUILDER_DISTRO)" COMMIT="$(COMMIT)" LABEL="$(LABEL)" PUSH_IMAGE="$(PUSH_IMAGE)"

ifneq ($(PROXY),)
export http_proxy := $(PROXY)
export https_proxy := $(PROXY)
export HTTP_PROXY := $(PROXY)
export HTTPS_PROXY := $(PROXY)
endif
ifneq ($(NO_PROXY),)
export no_proxy := $(NO_PROXY)
export NO_PROXY
endif

# Evaluated after `setup`, which may have installed the toolchain.
CARGO = PATH="$$(tools/rust-path):$$PATH" cargo
TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)
IMAGEBUILDER = $(TARGET_DIR)/release/imagebuilder

# Of bench-peers; without them: 5 runs of everything, on tmpfs and on disk, and what was built is started.
BENCH_WORK ?= $(TARGET_DIR)/bench-peers
BENCH_FLAGS = --work "$(BENCH_WORK)" $(RUNS:%=--runs %) $(PLACE:%=--place %) $(BOOT:%=--boot %) $(SUBSET:%=--subset %) \
	$(if $(TOOLS),--tools "$(TOOLS)") $(if $(WORKS),--works "$(WORKS)") $(if $(RESULTS),--results "$(RESULTS)") \
	$(if $(KEEP),--keep) $(if $(STRICT),--strict)

.DEFAULT_GOAL := help
.PHONY: help setup setup_test setup_lint build cut_image test test-trees test-repeat bench-peers lint docs doctor clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z_-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo; echo "  IMAGE_TYPE=$(IMAGE_TYPE) DISTRO=$(DISTRO) WORKDIR=$(WORKDIR) OUTPUT_DIR=$(OUTPUT_DIR) BUNDLES=\"$(BUNDLES)\""

setup: ## Install what compiling and building needs (packages of the distribution only)
	@tools/setup build

setup_test: ## Install what the tests need on top: QEMU, OVMF, readers of disk formats
	@tools/setup test

setup_lint:
	@tools/setup lint

build: compile ## Compile the program (release), and make the builder's container image where there is an engine for it
	@$(BUILDER_VARIABLES) tools/builder-image "$(IMAGEBUILDER)"

.PHONY: compile
compile: setup
	$(CARGO) build --release --locked

cut_image: cut_image_$(IMAGE_TYPE) ## Build the images that WORKDIR describes: make IMAGE_TYPE=qcow cut_image

# Sees to it that the builder's image holds this program, and asks which engine there is for it.
IN_CONTAINER = $(if $(filter embedded,$(ENGINE)),:,$(BUILDER_VARIABLES) tools/builder-image "$(IMAGEBUILDER)" if-changed)
WITH_ENGINE = IMAGEBUILDER_ENGINE="$$(tools/engine "$(ENGINE)" "$(IMAGEBUILDER)" "$(IMAGE)")" IMAGEBUILDER_IMAGE="$(IMAGE)"

.PHONY: cut_image_qcow cut_image_iso
cut_image_qcow: compile
	@$(IN_CONTAINER)
	$(WITH_ENGINE) tools/as-builder "$(OUTPUT_DIR)" "$(IMAGEBUILDER)" build --config "$(WORKDIR)" $(BUNDLES:%=--bundle %) --distro $(DISTRO) --output-dir "$(OUTPUT_DIR)" $(if $(LOCKED),--locked) $(BUILD_FLAGS)

.PHONY: lock
lock: compile ## Write down exactly what the images are made of (LOCK_FLAGS=--update takes newer packages)
	"$(IMAGEBUILDER)" lock --config "$(WORKDIR)" $(BUNDLES:%=--bundle %) --distro $(DISTRO) $(LOCK_FLAGS)

BUNDLE_NAME ?= $(DOCKER_REGISTRY)/$(IMAGE_PREFIX)/qcow-bundle

.PHONY: package_qcow
package_qcow: cut_image_qcow ## Put the qcow2 images into one container image, without Docker (PUSH_IMAGE=true pushes it)
	"$(IMAGEBUILDER)" bundle "$(OUTPUT_DIR)"/*.qcow2 --base "$(BUILDER_DISTRO)" --layout "$(OUTPUT_DIR)/qcow-bundle.oci" --archive "$(OUTPUT_DIR)/qcow-bundle.tar" \
	  --tag "$(BUNDLE_NAME):$(PROFILE:%=%-)$(IMAGE_TAG)-$(DISTRO)" $(COMMIT:%=--tag "$(BUNDLE_NAME):$(PROFILE:%=%-)%-$(DISTRO)") \
	  $(COMMIT:%=--label org.opencontainers.image.revision=%) $(LABEL:%=--label "%") $(if $(filter true,$(PUSH_IMAGE)),--push)

cut_image_iso: compile
	@$(IN_CONTAINER)
	$(WITH_ENGINE) tools/as-builder "$(OUTPUT_DIR)" "$(IMAGEBUILDER)" build --config "$(WORKDIR)" --image-type iso --distro $(DISTRO) --output-dir "$(OUTPUT_DIR)" $(if $(LOCKED),--locked) $(BUILD_FLAGS)

.PHONY: generate_iso
generate_iso: ## Build the ISO of the ephemeral node from WORKDIR/iso (as IMAGE_TYPE=iso cut_image)
	@$(MAKE) IMAGE_TYPE=iso cut_image

cut_image_%:
	@echo "IMAGE_TYPE=$* is unknown; type:  make IMAGE_TYPE=iso cut_image  or  make IMAGE_TYPE=qcow cut_image" >&2; exit 2

test: setup_test setup ## Run all tests, and say at the end what could not be tested here
	@tools/test

test-trees: setup_test setup ## A hundred large random trees through every writer and reader (minutes)
	TREES=$(or $(TREES),100) $(CARGO) test --release --locked --test trees -- --nocapture

test-repeat: setup_test compile ## Build the same image under every condition and compare all bytes, as root (half an hour)
	IMAGEBUILDER_REPEAT=all IMAGEBUILDER_REPEAT_PROGRAM="$(IMAGEBUILDER)" $(CARGO) test --locked --test repeat -- --nocapture

.PHONY: conformance
conformance: ## Run the cases in CASES=folder through the overlay engine and print passes by feature
	CONFORMANCE_CASES="$(abspath $(CASES))" $(CARGO) test --locked --test conformance -- --nocapture

.PHONY: differential
differential: ## Render TREES random trees of kustomizations (from SEED on) beside an official kubectl
	DIFFERENTIAL_TREES=$(or $(TREES),500) DIFFERENTIAL_SEED=$(or $(SEED),1) $(CARGO) test --locked --test differential -- --nocapture

.PHONY: fuzz bench-documents
fuzz: ## Fuzz the loader and the patch engine for ten minutes of processor time each (SECONDS_EACH=600)
	@PATH="$$(tools/rust-path):$$PATH" SECONDS_EACH=$(or $(SECONDS_EACH),600) fuzz/run

bench-documents: build ## Time and memory of rendering overlays beside kustomize (minutes; SMALL=1: seconds)
	benches/documents.py --program "$(IMAGEBUILDER)" $(if $(SMALL),--small)

bench-peers: ## Build the same image with mmdebstrap, vmdb2, debos, mkosi and with ours, in turns, as root (hours; SUBSET=ci: minutes)
	@benches/peers/setup $(if $(SUBSET),--subset $(SUBSET)) $(TOOLS)
	@$(MAKE) compile
	benches/peers/bench --program "$(IMAGEBUILDER)" $(BENCH_FLAGS)

lint: setup_lint ## Check formatting and run clippy, warnings as errors
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

docs: compile ## Write the generated pages under docs/reference again
	UPDATE_DOCS=1 $(CARGO) test --locked --test docs --test reference

doctor: compile ## Show what this machine lacks
	"$(IMAGEBUILDER)" doctor

clean: ## Remove target/ and out/ (the cache stays)
	rm -rf target out
