# SPDX-License-Identifier: BSD-3-Clause
# Random clients against a naive twin, over the whole stack (see model.py).
# ESPALIER_MODEL_OPS makes it longer; ESPALIER_TEST_SEED repeats a run.
load ../lib/common

ops=${ESPALIER_MODEL_OPS:-6000}

# model_run NAME CLIENTS OPTIONS... -- SERVER...
model_run ()
{
    local clients=$1; shift
    "$ESPALIER_SRCDIR/tests/e2e/model.py" ${ESPALIER_TEST_SEED:+--seed "$ESPALIER_TEST_SEED"} \
        --ops "$ops" --clients "$clients" --dir "$D" "$@"
}

# A tree three deep, of a size that is no multiple of anything; its tip's
# bytes are in base.raw.
make_tree ()
{
    espalier init "$STORE"
    random_file one.raw 3146239 1
    espalier --quiet root add one one.raw
    cp one.raw two.raw
    random_file piece 700001 2
    dd if=piece of=two.raw bs=1 seek=1048000 conv=notrunc status=none
    dd if=/dev/zero of=two.raw bs=4096 seek=40 count=30 conv=notrunc status=none
    espalier --quiet rp create two --parent one --from-image two.raw
    cp two.raw base.raw
    random_file piece 5000 3
    dd if=piece of=base.raw bs=1 seek=100 conv=notrunc status=none
    espalier --quiet rp create three --parent two --from-image base.raw
    espalier venue add cafe --disk three
}

@test "three clients with kept overlays over a tree, restarted and killed" {
    make_tree
    model_run 3 --base base.raw --export cafe -- \
        nbdkit -f -t 4 -U @SOCK@ --filter="$OVERLAY" "$VENUE" store="$STORE" overlay-mode=keep
    run espalier store check
    [ "$status" -eq 0 ]
}

@test "two clients with a quota that is never reached, and one thread" {
    make_tree
    model_run 2 --base base.raw --export cafe/0 -- \
        nbdkit -f -t 1 -U @SOCK@ --filter="$OVERLAY" "$VENUE" store="$STORE" overlay-quota=4M
}

@test "discarded overlays survive a killed server within their grace" {
    make_tree
    model_run 2 --base base.raw --export cafe -- \
        nbdkit -f -t 4 -U @SOCK@ --filter="$OVERLAY" "$VENUE" store="$STORE" overlay-mode=discard overlay-grace=600
}

@test "kept overlays over a plain file, without a store" {
    mkdir overlays
    random_file base.raw 2200001 4
    model_run 3 --base base.raw --export "any%20name" -- \
        nbdkit -f -t 4 -U @SOCK@ --filter="$OVERLAY" file base.raw overlay-dir="$D/overlays"
    random_file again.raw 2200001 4
    cmp base.raw again.raw
}
