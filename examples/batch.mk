# A folder of prompts, one a .txt file, becomes a folder of videos with every intermediate a file:
#
#   make -f examples/batch.mk -j2 IN=prompts OUT=out           ball.txt becomes out/ball.mp4, …
#   make -f examples/batch.mk IN=prompts OUT=out image         the same videos by another decoder
#
# What is killed goes on where it was: vidgen writes a file whole or not at all, so a file that is
# there is done. Delete out/ball.latents.vgs to sample anew; change a prompt, and what follows from it
# is made again. PASSES=0 and SCALE=1 leave out what a model has no component for.
IN     ?= prompts
OUT    ?= out
VIDGEN ?= vidgen
MODEL  ?= world
SEED   ?= 0
PASSES ?= 1
SCALE  ?= 2

NAMES := $(basename $(notdir $(wildcard $(IN)/*.txt)))

.PHONY: videos image
.SECONDARY:  # intermediates stay
videos: $(NAMES:%=$(OUT)/%.mp4)

$(OUT)/%.text.vgs: $(IN)/%.txt | $(OUT)
	$(VIDGEN) encode-text --input $< --model $(MODEL) --force -o $@

$(OUT)/%.latents.vgs: $(OUT)/%.text.vgs
	$(VIDGEN) sample-keyframes $< --model $(MODEL) --seed $(SEED) --force -o $@

$(OUT)/%.dense.vgs: $(OUT)/%.latents.vgs
ifeq ($(PASSES),0)
	cp $< $@.new && mv $@.new $@
else
	$(VIDGEN) interpolate $< --model $(MODEL) --passes $(PASSES) --force -o $@
endif

$(OUT)/%.large.vgs: $(OUT)/%.dense.vgs
ifeq ($(SCALE),1)
	cp $< $@.new && mv $@.new $@
else
	$(VIDGEN) upsample $< --model $(MODEL) --scale $(SCALE) --force -o $@
endif

$(OUT)/%.mp4: $(OUT)/%.large.vgs
	$(VIDGEN) decode $< --model $(MODEL) --force -o $@

# Another decoder needs no other samples: from the same latents, each of these in a second.
image: $(NAMES:%=$(OUT)/%.image.mp4)

$(OUT)/%.image.mp4: $(OUT)/%.large.vgs
	$(VIDGEN) decode $< --model $(MODEL) --decoder image --force -o $@

$(OUT):
	mkdir -p $@
