/* test_cli_sums.c - checksums against published vectors and each other; what a response's head says can be checked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/sums.h"

static const char *hex_of(enum sum_kind kind, const void *p, size_t n, size_t step)
{
    static char out[2 * SUM_BYTES_MAX + 1];
    struct sum s;
    struct sum_value v;

    assert_true(sum_begin(&s, kind));
    for (size_t at = 0; at < n; at += step) sum_add(&s, (const char *)p + at, n - at < step ? n - at : step);
    sum_end(&s, &v);
    assert_int_equal(v.kind, kind);
    for (size_t i = 0; i < sum_bytes(kind); i++) snprintf(out + 2 * i, 3, "%02x", v.bytes[i]);
    return out;
}

static void the_published_check_values_come_out(void **state)
{
    static const char text[] = "123456789";

    (void)state;
    for (size_t step = 1; step <= 9; step++) {
        assert_string_equal(hex_of(SUM_CRC32, text, 9, step), "cbf43926");
        assert_string_equal(hex_of(SUM_CRC32C, text, 9, step), "e3069283");
        assert_string_equal(hex_of(SUM_CRC64NVME, text, 9, step), "ae8b14860a799888");
        assert_string_equal(hex_of(SUM_MD5, text, 9, step), "25f9e794323b453885f5181f1b624d0b");
        assert_string_equal(hex_of(SUM_SHA1, text, 9, step), "f7c3bc1d808e04732adf679965ccc34ca7ae3441");
        assert_string_equal(hex_of(SUM_SHA256, text, 9, step), "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225");
    }
    assert_string_equal(hex_of(SUM_CRC32C, "", 0, 1), "00000000");
}

/* By one bit at a time, the definition itself. */
static uint32_t crc32c_slowly(const uint8_t *p, size_t n)
{
    uint32_t c = 0xffffffffu;

    for (; n; n--) {
        c ^= *p++;
        for (int k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
    }
    return ~c;
}

static void crc32c_is_right_at_all_lengths_and_joins(void **state)
{
    enum { N = 70000 };
    uint8_t *p = malloc(N);
    static const size_t cuts[] = {0, 1, 7, 8, 4095, 12287, 12288, 12289, 36864, 65536, N};

    (void)state;
    for (size_t i = 0; i < N; i++) p[i] = (uint8_t)(i * 2654435761u >> 13);
    uint32_t whole = crc32c_slowly(p, N);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        size_t n = cuts[i];
        uint32_t a = sum_crc32c(0, p, n), b = sum_crc32c(0, p + n, N - n);
        assert_int_equal(a, crc32c_slowly(p, n));
        assert_int_equal(sum_crc32c(a, p + n, N - n), whole);
        assert_int_equal(sum_crc32c_join(a, b, N - n), whole);
    }
    free(p);
}

/* The same for any kind, most significant byte first. */
static uint64_t crc_slowly(uint64_t poly, uint64_t ones, const uint8_t *p, size_t n)
{
    uint64_t c = ones;

    for (; n; n--) {
        c ^= *p++;
        for (int k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ poly : c >> 1;
    }
    return c ^ ones;
}

static void the_other_crcs_are_right_at_all_lengths_and_in_pieces(void **state)
{
    enum { N = 3000 };
    uint8_t p[N];
    char want[32];

    (void)state;
    for (size_t i = 0; i < N; i++) p[i] = (uint8_t)(i * 2654435761u >> 11);
    for (size_t n = 0; n < N; n += n < 300 ? 1 : 177) {
        for (size_t step = 129; step <= N; step += 1436) {
            snprintf(want, sizeof want, "%08llx", (unsigned long long)crc_slowly(0xedb88320u, 0xffffffffu, p, n));
            assert_string_equal(hex_of(SUM_CRC32, p, n, step), want);
            snprintf(want, sizeof want, "%016llx", (unsigned long long)crc_slowly(0x9a6c9329ac4bc9b5u, UINT64_MAX, p, n));
            assert_string_equal(hex_of(SUM_CRC64NVME, p, n, step), want);
        }
    }
}

static void expected(struct sum_value *out, const char *const fields[][2])
{
    struct hdr h[8];
    struct head head = {.status = 200, .hdrs = h};

    for (; fields[head.nhdrs][0]; head.nhdrs++) {
        struct str name = str_c(fields[head.nhdrs][0]);
        h[head.nhdrs] = (struct hdr){name, str_c(fields[head.nhdrs][1]), hdr_id_of(name)};
    }
    sum_expected(&head, out);
}

static void what_can_be_checked_is_told_from_what_cannot(void **state)
{
    static const struct {
        const char *fields[5][2];
        enum sum_kind kind;
    } rows[] = {
        {{{"etag", "\"25f9e794323b453885f5181f1b624d0b\""}}, SUM_MD5},
        {{{"etag", "\"25f9e794323b453885f5181f1b624d0b-3\""}}, SUM_NONE},
        {{{"etag", "W/\"25f9e794323b453885f5181f1b624d0b\""}}, SUM_NONE},
        {{{"etag", "\"25f9e794323b453885f5181f1b624d0x\""}}, SUM_NONE},
        {{{"etag", "\"25f9e794323b453885f5181f1b624d0b\""}, {"x-amz-server-side-encryption", "aws:kms"}}, SUM_NONE},
        {{{"etag", "\"25f9e794323b453885f5181f1b624d0b\""}, {"x-amz-server-side-encryption", "AES256"}}, SUM_MD5},
        {{{"etag", "\"25f9e794323b453885f5181f1b624d0b\""}, {"x-amz-server-side-encryption-customer-algorithm", "AES256"}}, SUM_NONE},
        {{{"etag", "\"25f9e794323b453885f5181f1b624d0b\""}, {"x-amz-checksum-crc32", "y/Q5Jg=="}}, SUM_CRC32},
        {{{"x-amz-checksum-crc32", "y/Q5Jg=="}, {"x-amz-checksum-crc32c", "4waSgw=="}}, SUM_CRC32C},
        {{{"x-amz-checksum-crc64nvme", "rosUhgp5mIg="}, {"x-amz-checksum-type", "FULL_OBJECT"}}, SUM_CRC64NVME},
        {{{"x-amz-checksum-crc32", "y/Q5Jg=="}, {"x-amz-checksum-type", "COMPOSITE"}}, SUM_NONE},
        {{{"x-amz-checksum-sha256", "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=-2"}}, SUM_NONE},
        {{{"x-amz-checksum-sha256", "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="}}, SUM_SHA256},
        {{{"x-amz-checksum-crc32", "not base"}}, SUM_NONE},
        {{{"etag", "\"5d-2\""}, {"x-amz-checksum-crc32", "y/Q5Jg=="}}, SUM_NONE}, /* of which it is, nobody says */
        {{{"etag", "\"5d-2\""}, {"x-amz-checksum-crc32", "y/Q5Jg=="}, {"x-amz-checksum-type", "FULL_OBJECT"}}, SUM_CRC32},
        {{{"etag", "\"5d-2\""}, {"x-amz-checksum-crc64nvme", "rosUhgp5mIg="}}, SUM_CRC64NVME},
    };
    struct sum s;
    struct sum_value v, want;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        expected(&want, rows[i].fields);
        assert_int_equal(want.kind, rows[i].kind);
        if (want.kind == SUM_NONE) continue;
        assert_true(sum_begin(&s, want.kind));
        sum_add(&s, "123456789", 9);
        sum_end(&s, &v);
        assert_true(sum_equal(&v, &want));
        v.bytes[sum_bytes(v.kind) - 1] ^= 1;
        assert_false(sum_equal(&v, &want));
    }
}

static void values_are_written_as_headers_want_them(void **state)
{
    struct sum s;
    struct sum_value v;
    char text[48];

    (void)state;
    assert_true(sum_begin(&s, SUM_MD5));
    sum_add(&s, "123456789", 9);
    sum_end(&s, &v);
    assert_string_equal(sum_base64(&v, text), "JfnnlDI7RTiF9RgfG2JNCw==");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_check_values_come_out),
        cmocka_unit_test(crc32c_is_right_at_all_lengths_and_joins),
        cmocka_unit_test(the_other_crcs_are_right_at_all_lengths_and_in_pieces),
        cmocka_unit_test(what_can_be_checked_is_told_from_what_cannot),
        cmocka_unit_test(values_are_written_as_headers_want_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
