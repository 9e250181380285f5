# SPDX-License-Identifier: BSD-2-Clause
# The front door: `make help` lists what there is.
.DEFAULT_GOAL := build
build: build/build.ninja
	@ninja -C build
build/build.ninja: meson.build $(wildcard src src/* tests tests/*)
	@test -d build && meson setup --reconfigure build || meson setup build
.PHONY: build
