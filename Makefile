# SPDX-License-Identifier: BSD-2-Clause
# The front door. Meson and Ninja build; this file says what one may ask for.

T ?=
APPLIANCES := $(filter-out common,$(basename $(notdir $(wildcard tools/appliances/*.toml))))
KEY ?=
BASE ?=
GUEST ?=
BENCH ?= boot guest native handover
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := build
.PHONY: build setup guest appliances sysroot demo test check-long bench package install clean format help

build: setup build/build.ninja  ## build build/strake and the tests
	@ninja -C build -n | grep -q 'no work to do' || ninja -C build

setup:
	@tools/setup.sh

# Meson lists the files of these folders when it configures, so a change of one configures again.
build/build.ninja: meson.build $(shell find src tests -type d -o -name meson.build)
	@mkdir -p build
	@if [ -f $@ ]; then meson setup --reconfigure build; else meson setup build; fi \
	    > build/setup.log || { cat build/setup.log; exit 1; }
	@touch $@

guest: setup  ## fetch the Debian kernel and busybox, make the initramfs
	@tools/guest/fetch.py
	@tools/guest/initramfs.py

appliance-%: setup
	@tools/appliance.py $*

appliances: setup  ## build the guests of tools/appliances/ (docs/appliances.md); appliance-NAME builds one
	@tools/appliance.py $(APPLIANCES)

sysroot: setup  ## fetch Debian's riscv64 programs into build/sysroot (docs/sysroot.md)
	@tools/sysroot.py

demo: build guest  ## boot Debian's kernel, whose guest updates Strake beneath it; a root shell on a terminal, else a tour
	@tools/demo.py

test: build guest appliances sysroot  ## run the tests; T=NAME runs one and shows what it prints
	@tools/test.py $(T)

check-long: build guest appliances  ## run what is too slow for `make test`; T=NAME as there
	@tools/test.py --long $(T)

bench: build $(if $(filter-out handles check,$(BENCH)),guest)  ## measure against peers; BENCH=boot|guest|native|check|net|handover|update|handles|leverage|mount, RUNS=n, SCALE=x, ENGINE=NAME
	@for bench in $(BENCH); do bench/run.py $$bench || exit 1; done

package: setup build/build.ninja  ## make an update package of build/strake; KEY=FILE signs, BASE="VERSION=FILE ..." adds deltas, GUEST="FILE.deb ..."
	@ninja -C build -n strake | grep -q 'no work to do' || ninja -C build strake
	@tools/package.py --key "$(KEY)" --base "$(BASE)" --guest "$(GUEST)"

install: build  ## install (PREFIX and DESTDIR as Meson has them)
	@meson install -C build --no-rebuild

format:  ## format the C sources
	@clang-format-14 -i $$(git ls-files '*.c' '*.h')

clean:  ## remove what was built (fetched packages too)
	@rm -rf build

help:  ## show this
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
