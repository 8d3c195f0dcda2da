# Two commands for people in a hurry; configure, ninja and meson do the work.

BUILD ?= build

.PHONY: all demo check series check-series install clean

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

$(BUILD)/build.ninja: $(wildcard patches/* patches/*/*)
	@if [ -x $(BUILD)/egm-reconfigure ]; then $(BUILD)/egm-reconfigure; \
	else mkdir -p $(BUILD) && cd $(BUILD) && $(CURDIR)/configure; fi
	@touch $@

# Only what the demo needs: the first result comes sooner.
demo: $(BUILD)/build.ninja
	@ninja -C $(BUILD) qemu-system-aarch64
	@scripts/demo $(BUILD)

check: all
	@scripts/check $(BUILD)

# For qemu-devel: the patches, ready to send, and the proof that they are.
series: $(BUILD)/build.ninja
	@scripts/export-series

check-series: series
	@scripts/check-series

install: all
	@ninja -C $(BUILD) install

clean:
	rm -rf $(BUILD)
