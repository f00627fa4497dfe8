# `make demo` needs cargo alone; `make test` installs what is missing and says so.

CARGO ?= cargo
TARGET = $(or $(CARGO_TARGET_DIR),target)
AS_JSON = $(if $(filter json,$(OUTPUT)),--output json)

.PHONY: demo test soak torture ca-contract check bench fuzz deps help package package-check

help: ## Shows this list.
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

demo: ## Shows the main job on this machine; CA=pkcs11 keeps the node CA's key in SoftHSM.
	$(CARGO) build --locked
	demo/run.sh $(TARGET)/debug/muster $(CA)

deps: ## Installs what the tests need beyond cargo (Debian packages, moto); asks on a terminal.
	./scripts/install-test-tools

test: deps ## Runs every test.
	./scripts/run-tests

torture: ## Joins nodes while the server is killed every 3 s, 200 rounds of 30 s: MUSTER_TORTURE_ROUNDS=200.
	MUSTER_TORTURE_ROUNDS=$(or $(MUSTER_TORTURE_ROUNDS),200) $(CARGO) test --locked --test torture -- --nocapture

ca-contract: deps ## Prints what each CA backend keeps of the contract, and how broken ones are caught.
	$(CARGO) test --locked --test join contract::every_backend -- --nocapture

soak: deps ## Rotates tokens every 5 s for 3 minutes while SSM fails and 50 agents join.
	MUSTER_SOAK_SECONDS=180 $(CARGO) test --locked --test soak -- --nocapture

check: ## Formatting, lints, documentation, that the fuzz targets compile, and the rules for dependencies.
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) check --locked --manifest-path fuzz/Cargo.toml --bins --no-default-features --target-dir $(TARGET)
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	@if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; \
	 else echo "cargo-deny is not installed: dependency rules are checked by tests/architecture.rs only"; fi

bench: ## Prints figures: start-up, a join, prices, a boot storm, single steps. OUTPUT=json: one object a line.
	$(CARGO) build --locked --release
	./benches/figures $(TARGET)/release/muster $(AS_JSON)
	./benches/price-of-proof $(TARGET)/release/muster $(AS_JSON)
	./benches/price-of-tokens $(TARGET)/release/muster $(AS_JSON)
	./benches/price-of-review $(TARGET)/release/muster $(AS_JSON)
	$(CARGO) bench --locked --bench boot_storm -- \
		--baseline --document-only --with-proof --hostile 90% --known 1000000 $(AS_JSON)
	./benches/single-steps $(TARGET) $(AS_JSON)

fuzz: ## Fuzzes one target: make fuzz T=ber_cms SECONDS=60
	./scripts/fuzz $(T) $(or $(SECONDS),60)

package: ## Builds the Debian package; needs cargo-deb (cargo install cargo-deb --locked).
	$(CARGO) deb --locked

package-check: package ## Installs, runs, removes and purges it in a new Debian; needs root and debootstrap.
	./scripts/check-package "$$(ls -t $(TARGET)/debian/muster_*.deb | head -n 1)"
