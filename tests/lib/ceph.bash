# SPDX-License-Identifier: BSD-3-Clause
# Tests over a real S3 server, Ceph's gateway: one for all tests of a file, with
# the bucket "bucket" at $ENDPOINT.  A test asks missing_for_ceph first.

missing_for_ceph ()
{
    local p
    for p in ceph-mon ceph-osd radosgw radosgw-admin ceph uuidgen; do
        command -v $p >/dev/null || { echo "$p"; return; }
    done
}

setup_file ()
{
    [ -z "$(missing_for_ceph)" ] || return 0
    CEPH=$(mktemp -d "${TMPDIR:-/tmp}/espalier-ceph-XXXXXX")
    export CEPH
    local i
    for i in 1 2 3; do
        ENDPOINT=$("$ESPALIER_SRCDIR/tests/lib/ceph-up" "$CEPH/$i" 3>&-) && break
        "$ESPALIER_SRCDIR/tests/lib/ceph-down" "$CEPH/$i"
    done
    export ENDPOINT
    curl -sf --aws-sigv4 aws:amz:us-east-1:s3 -u TESTKEY:TESTSECRET -X PUT \
        -H "x-amz-content-sha256: $(sha256sum </dev/null | cut -d' ' -f1)" "$ENDPOINT/bucket"
}

teardown_file ()
{
    [ -n "${CEPH-}" ] || return 0
    local d
    for d in "$CEPH"/*; do "$ESPALIER_SRCDIR/tests/lib/ceph-down" "$d"; done
    rm -rf -- "$CEPH"
}
