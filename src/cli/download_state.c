/* download_state.c - what --continue needs to go on with a large file: ".NAME.s3dlio-state" beside it says which version of the
 * object the parts in ".NAME.s3dlio-part" are of, and has one line for each part: its CRC-32C once it was written, dashes
 * before. A part counts only if the file still has these bytes, so that not even a crash of the machine can spoil a file.
 *
 *     s3dlio-state 1
 *     etag "5b1a..."
 *     size 1073741824
 *     part 8388608
 *
 *     e3069283
 *     --------
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cmd_transfer.h"
#include "cli/download_impl.h"

#define LINE_BYTES 9u
#define HEADER_MAX 512u
#define READ_BYTES ((size_t)128 << 10)

static int read_sum(int fd, uint64_t at, uint64_t n, uint32_t *sum)
{
    uint8_t *p = malloc(READ_BYTES);
    int why = p ? 0 : ENOMEM;

    *sum = 0;
    while (n && !why) {
        ssize_t got = pread(fd, p, n < READ_BYTES ? (size_t)n : READ_BYTES, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            why = got < 0 ? errno : EIO;
            break;
        }
        *sum = sum_crc32c(*sum, p, (size_t)got);
        at += (uint64_t)got;
        n -= (uint64_t)got;
    }
    free(p);
    return why;
}

/* ---- writing */

static int write_all(int fd, const void *p, size_t n, uint64_t at)
{
    struct outfile f = {.fd = fd};
    return outfile_write(&f, p, n, at);
}

int state_create(struct download *d)
{
    struct strbuf text;
    int why = 0;

    d->file.doing = "create the state beside";
    d->state.path = outfile_beside(d->x.item->path, ".s3dlio-state");
    if (!d->state.path) return ENOMEM;
    d->state.fd = open(d->state.path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (d->state.fd < 0) return errno;
    strbuf_init(&text, (size_t)64 << 20);
    strbuf_f(&text, "s3dlio-state 1\netag %s\nsize %llu\npart %llu\n\n", d->etag, (unsigned long long)d->end,
             (unsigned long long)d->part_bytes);
    d->state.header_bytes = text.n;
    for (uint64_t i = 0; i < d->nparts; i++) strbuf_z(&text, "--------\n");
    why = text.failed ? ENOMEM : write_all(d->state.fd, text.p, text.n, 0);
    strbuf_free(&text);
    return why;
}

struct mark {
    struct disk_job job;
    struct download *d;
    uint64_t part;
    int error;
};

static void mark_run(struct disk_job *j)
{
    struct mark *m = container_of(j, struct mark, job);
    const struct download *d = m->d;
    char line[16];
    uint32_t sum;

    m->error = read_sum(d->file.fd, m->part * d->part_bytes, part_length(d, m->part), &sum);
    snprintf(line, sizeof line, "%08x\n", sum);
    if (!m->error) m->error = write_all(d->state.fd, line, LINE_BYTES, d->state.header_bytes + m->part * LINE_BYTES);
}

static void mark_done(struct disk_job *j)
{
    struct mark *m = container_of(j, struct mark, job);
    struct download *d = m->d;
    int error = m->error;

    free(m);
    if (!download_job_returned(d) || d->failing || d->restarting || !error) return;
    d->file.doing = "write the state of";
    download_file_failed(d, error);
}

void state_mark(struct download *d, uint64_t part)
{
    struct mark *m = calloc(1, sizeof *m);

    if (!m) return; /* this part will be read again */
    m->d = d;
    m->part = part;
    download_job(d, &m->job, mark_run, mark_done, NULL);
}

void state_drop(struct download *d, bool keep)
{
    if (d->state.path && !keep) unlink(d->state.path);
    if (d->state.fd >= 0) close(d->state.fd);
    free(d->state.path);
    d->state = (struct kept_state){.fd = -1};
}

/* ---- reading */

bool state_exists(struct download *d)
{
    char *path = outfile_beside(d->x.item->path, ".s3dlio-state");
    bool there = path && access(path, R_OK | W_OK) == 0;

    free(path);
    return there;
}

/* The header says the same object: size and part length fit what HEAD said. */
static bool header_fits(struct download *d, const char *text)
{
    char etag[256];
    unsigned long long size, part;
    int used = 0;

    if (sscanf(text, "s3dlio-state 1\netag %255[^\n]\nsize %llu\npart %llu%n", etag, &size, &part, &used) != 3) return false;
    /* a file may hold anything: what no run of ours writes would cost a request a byte, or overflow below */
    if (part < TRANSFER_PART_MIN || part > TRANSFER_PART_MAX) return false;
    if (strcmp(etag, d->etag) != 0 || size != d->end || size == 0 || strncmp(text + used, "\n\n", 2) != 0) return false;
    d->part_bytes = part;
    d->nparts = (size + part - 1) / part;
    d->state.header_bytes = (size_t)used + 2;
    return true;
}

static bool part_is_there(struct download *d, uint64_t part)
{
    char line[LINE_BYTES + 1] = "";
    uint64_t want;
    uint32_t sum;

    if (pread(d->state.fd, line, LINE_BYTES, (off_t)(d->state.header_bytes + part * LINE_BYTES)) != (ssize_t)LINE_BYTES) return false;
    if (!str_hex_to_u64(str_make(line, 8), &want)) return false;
    return read_sum(d->file.fd, part * d->part_bytes, part_length(d, part), &sum) == 0 && sum == want;
}

static void resume_run(struct disk_job *j)
{
    struct download *d = container_of(j, struct download, job);
    char text[HEADER_MAX + 1];
    bool there;

    d->state.path = outfile_beside(d->x.item->path, ".s3dlio-state");
    d->error = d->state.path ? outfile_open_kept(&d->file, &there) : ENOMEM;
    if (d->error) return;
    d->state.fd = open(d->state.path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = d->state.fd < 0 ? -1 : pread(d->state.fd, text, HEADER_MAX, 0);
    text[n > 0 ? n : 0] = '\0';
    if (!there || !header_fits(d, text)) {
        d->error = ESTALE;
        return;
    }
    d->have = calloc(d->nparts, 1);
    if (!d->have) d->error = ENOMEM;
    else if (ftruncate(d->file.fd, (off_t)d->end) != 0) d->error = errno;
    for (uint64_t i = 0; i < d->nparts && !d->error; i++) d->have[i] = part_is_there(d, i);
}

static void resume_done(struct disk_job *j)
{
    struct download *d = container_of(j, struct download, job);
    uint64_t got = 0;

    if (!download_job_returned(d) || d->failing) return;
    if (d->error == ESTALE) { /* of another version, or nobody can tell: from the start */
        d->restarting = true;
        return;
    }
    if (d->error) {
        download_file_failed(d, d->error);
        return;
    }
    d->resuming = false;
    for (uint64_t i = 0; i < d->nparts; i++)
        if (d->have[i]) got += part_length(d, i);
    while (d->ready < d->end && d->have[d->ready / d->part_bytes]) d->ready += d->part_bytes;
    if (d->ready > d->end) d->ready = d->end;
    d->next = d->ready; /* what is there behind it is stepped over */
    d->shown = got;
    transfer_progress(d->x.t, (int64_t)got);
    if (got) cli_note(d->x.t->cli, "%s: going on, %llu of %llu bytes are there", d->x.item->path, (unsigned long long)got,
                      (unsigned long long)d->end);
}

void state_resume(struct download *d) { download_job(d, &d->job, resume_run, resume_done, NULL); }
