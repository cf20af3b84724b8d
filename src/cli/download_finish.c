/* download_finish.c - the check, and the name. See download.c.
 *
 * A large file is read back in the order of its bytes while later parts still arrive, out of memory as a rule: a digest needs
 * them in order, and parts come as they like. CRCs are made as bytes are written (download_part.c), and only of parts that
 * came before it was known which CRC to make, or in an earlier run, are read back. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/download_impl.h"

#define SUM_BYTES ((size_t)128 << 10)
#define SUM_STEP_BYTES ((uint64_t)8 << 20) /* in one job: others want the threads, too */

static void say_wrong(struct download *d)
{
    download_fail(d, XFER_FAILED, "what arrived does not match its %s (--no-check takes it as it is)",
                  d->want.kind == SUM_MD5 ? "ETag, an MD5" : sum_name(d->want.kind));
}

/* ---- the sum of a large file */

static void sum_run(struct disk_job *j)
{
    struct download *d = container_of(j, struct download, job);

    d->error = 0;
    for (size_t done = 0; done < d->sum_n;) {
        size_t want = d->sum_n - done < SUM_BYTES ? d->sum_n - done : SUM_BYTES;
        ssize_t got = pread(d->file.fd, d->sum_bytes, want, (off_t)(d->sum_at + done));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            d->error = got < 0 ? errno : EIO;
            return;
        }
        sum_add(&d->sum, d->sum_bytes, (size_t)got);
        done += (size_t)got;
    }
}

static void sum_done(struct disk_job *j)
{
    struct download *d = container_of(j, struct download, job);

    d->summing = false;
    d->summed += d->sum_n;
    if (is_summed_apart(d)) {
        d->crc ^= sum_crc_moved(d->want.kind, d->sum.crc, d->end - d->begin - d->sum_at - d->sum_n);
        d->have[d->sum_part] |= PART_SUMMED;
        sum_drop(&d->sum);
    }
    if (!download_job_returned(d) || d->failing || !d->error) return;
    d->file.doing = "read";
    download_file_failed(d, d->error);
}

static bool sum_prepare(struct download *d)
{
    if (d->sum.kind != SUM_NONE) return true;
    if (!d->sum_bytes) d->sum_bytes = malloc(SUM_BYTES);
    if (d->sum_bytes && sum_begin(&d->sum, d->want.kind)) return true;
    download_fail(d, XFER_FAILED, "%s", err_text(ERR_NOMEM));
    return false;
}

/* A part that is here and not in the CRC; false: none. */
static bool next_apart(struct download *d)
{
    while (d->sum_from < d->nparts && d->have[d->sum_from] & PART_SUMMED) d->sum_from++;
    uint64_t i = d->sum_from, end = (d->next - d->begin + d->part_bytes - 1) / d->part_bytes;
    while (i < end && d->have[i] != PART_HERE) i++;
    if (i >= end) return false;
    d->sum_part = i;
    d->sum_at = i * d->part_bytes;
    d->sum_n = (size_t)part_length(d, i);
    return true;
}

static bool next_in_order(struct download *d)
{
    if (d->summed >= d->ready) return false;
    d->sum_at = d->summed;
    d->sum_n = (size_t)(d->ready - d->summed < SUM_STEP_BYTES ? d->ready - d->summed : SUM_STEP_BYTES);
    return true;
}

void sum_step(struct download *d)
{
    if (!d->want_known || d->want.kind == SUM_NONE || d->summing) return;
    if (!(is_summed_apart(d) ? next_apart(d) : next_in_order(d)) || !sum_prepare(d)) return;
    d->summing = true;
    download_job(d, &d->job, sum_run, sum_done, NULL);
}

bool sum_is_over(const struct download *d)
{
    return is_stream(d) || d->want.kind == SUM_NONE || d->summed == d->end - d->begin;
}

static bool sum_is_right(struct download *d)
{
    struct sum_value got;

    if (d->want.kind == SUM_NONE) return true;
    if (is_summed_apart(d)) {
        sum_of_crc(d->want.kind, d->crc, &got);
        return sum_equal(&got, &d->want);
    }
    if (d->sum.kind == SUM_NONE && !sum_begin(&d->sum, d->want.kind)) return false;
    sum_end(&d->sum, &got);
    return sum_equal(&got, &d->want);
}

/* ---- the name */

static void finish_done(struct disk_job *j)
{
    struct download *d = container_of(j, struct download, job);
    const struct transfer *t = d->x.t;

    if (!download_job_returned(d) || d->failing) return;
    if (d->sum_wrong) {
        say_wrong(d);
    } else if (d->error == EEXIST && t->o.no_clobber) {
        cli_note(t->cli, "%s is there already", d->x.item->path);
        d->failing = true;
        d->how = XFER_SKIPPED;
    } else if (d->error) {
        download_file_failed(d, d->error);
    } else {
        d->finished = true;
    }
}

static void finish_run(struct disk_job *j)
{
    struct download *d = container_of(j, struct download, job);
    const struct transfer_options *o = &d->x.t->o;

    d->error = outfile_commit(&d->file, o->no_clobber, o->keep_mtime ? d->mtime_s : -1);
}

void finish_start(struct download *d)
{
    d->finishing = true;
    if (!sum_is_right(d)) {
        state_drop(d, false); /* a part of it is wrong, and nobody knows which */
        say_wrong(d);
    } else if (is_stream(d) || d->c->discard) {
        d->finished = true;
        download_settle(d);
    } else {
        state_drop(d, false);
        download_job(d, &d->job, finish_run, finish_done, NULL);
    }
}

/* ---- all of it in one buffer */

static void small_run(struct disk_job *j)
{
    struct download *d = container_of(j, struct download, job);
    const struct transfer_options *o = &d->x.t->o;
    const struct buffer *b = j->arg;
    struct sum_value got;

    d->error = 0;
    if (d->want.kind != SUM_NONE) {
        if (!sum_begin(&d->sum, d->want.kind)) {
            d->error = ENOMEM;
            return;
        }
        if (b) sum_add(&d->sum, b->bytes, b->n);
        sum_end(&d->sum, &got);
        d->sum_wrong = !sum_equal(&got, &d->want);
        if (d->sum_wrong) return;
    }
    d->error = outfile_open(&d->file);
    if (!d->error && b) d->error = outfile_write(&d->file, b->bytes, b->n, 0);
    if (!d->error) d->error = outfile_commit(&d->file, o->no_clobber, o->keep_mtime ? d->mtime_s : -1);
}

static void small_done(struct disk_job *j)
{
    struct download *d = container_of(j, struct download, job);
    struct buffer *b = j->arg;

    if (b) buffer_put(d->x.t, b);
    finish_done(j);
}

void finish_small(struct download *d)
{
    struct list *n = list_first(&d->parts);
    struct part *p = n ? container_of(n, struct part, link) : NULL;
    struct buffer *b;

    if (!p || !p->whole || !d->want_known) return;
    b = p->cur;
    p->cur = NULL;
    part_free(p);
    d->finishing = true;
    download_job(d, &d->job, small_run, small_done, b);
}
