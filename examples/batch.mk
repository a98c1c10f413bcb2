# A folder of prompts, one a .txt file, becomes a folder of videos with every intermediate a file:
#
#   make -f examples/batch.mk -j2 IN=prompts OUT=out           ball.txt becomes out/ball.mp4, …
#   make -f examples/batch.mk IN=prompts OUT=out image         the same videos by another decoder
#
# What is killed goes on where it was: vidgen writes a file whole or not at all, so a file that is
# there is done. Delete out/ball.latents.vgs to sample anew; change a prompt, and what follows from it
# is made again. Another MODEL, SEED, PASSES or SCALE makes everything again. PASSES=0 and SCALE=1
# leave out what a model has no component for. One line a file; names without spaces.
IN     ?= prompts
OUT    ?= out
VIDGEN ?= vidgen
MODEL  ?= world
SEED   ?= 0
PASSES ?= 1
SCALE  ?= 2

NAMES := $(basename $(notdir $(wildcard $(IN)/*.txt)))
ifeq ($(NAMES),)
$(error no .txt file in `$(IN)`: say IN=FOLDER)
endif
of = $(NAMES:%=$(OUT)/%.$(1))

.PHONY: videos image always
videos: $(call of,mp4)

# Holds the settings, and is written only when they change.
SETTINGS := $(OUT)/settings
SAID     := model $(MODEL), seed $(SEED), passes $(PASSES), scale $(SCALE)
$(SETTINGS): always
	@mkdir -p $(OUT)
	@echo '$(SAID)' | cmp -s - $@ || echo '$(SAID)' > $@

$(call of,text.vgs): $(OUT)/%.text.vgs: $(IN)/%.txt $(SETTINGS)
	$(VIDGEN) encode-text --input $< --model $(MODEL) --force -o $@

$(call of,latents.vgs): $(OUT)/%.latents.vgs: $(OUT)/%.text.vgs
	$(VIDGEN) sample-keyframes $< --model $(MODEL) --seed $(SEED) --force -o $@

$(call of,dense.vgs): $(OUT)/%.dense.vgs: $(OUT)/%.latents.vgs
ifeq ($(PASSES),0)
	cp $< $@.new && mv $@.new $@
else
	$(VIDGEN) interpolate $< --model $(MODEL) --passes $(PASSES) --force -o $@
endif

$(call of,large.vgs): $(OUT)/%.large.vgs: $(OUT)/%.dense.vgs
ifeq ($(SCALE),1)
	cp $< $@.new && mv $@.new $@
else
	$(VIDGEN) upsample $< --model $(MODEL) --scale $(SCALE) --force -o $@
endif

$(call of,mp4): $(OUT)/%.mp4: $(OUT)/%.large.vgs
	$(VIDGEN) decode $< --model $(MODEL) --force -o $@

# Another decoder needs no other samples: from the same latents, each of these in a second.
image: $(call of,image.mp4)

$(call of,image.mp4): $(OUT)/%.image.mp4: $(OUT)/%.large.vgs
	$(VIDGEN) decode $< --model $(MODEL) --decoder image --force -o $@
