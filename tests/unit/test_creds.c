/* test_creds.c - credentials from environment, profile files and configuration, and the one line when there are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/check.h"
#include "s3/creds.h"

#define ID "AKIAIOSFODNN7EXAMPLE"
#define SECRET "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

static char home[256];

static const char *const variables[] = {"AWS_ACCESS_KEY_ID",
                                        "AWS_SECRET_ACCESS_KEY",
                                        "AWS_SESSION_TOKEN",
                                        "AWS_SECURITY_TOKEN",
                                        "AWS_REGION",
                                        "AWS_DEFAULT_REGION",
                                        "AWS_PROFILE",
                                        "AWS_DEFAULT_PROFILE",
                                        "AWS_SHARED_CREDENTIALS_FILE",
                                        "AWS_CONFIG_FILE"};

static const char *in_home(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", home, name);
    return path;
}

static void put_file(const char *name, const char *text)
{
    FILE *f = fopen(in_home(name), "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* An empty home and no AWS variables. */
static int setup(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(home, sizeof home, "%s/test_creds.XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(home)) return -1;
    for (size_t i = 0; i < ARRAY_LEN(variables); i++) unsetenv(variables[i]);
    setenv("HOME", home, 1);
    return mkdir(in_home(".aws"), 0700);
}

static int teardown(void **state)
{
    (void)state;
    static const char *const made[] = {".aws/credentials", ".aws/config", "other", "big"};
    for (size_t i = 0; i < ARRAY_LEN(made); i++) unlink(in_home(made[i]));
    rmdir(in_home(".aws"));
    rmdir(home);
    return 0;
}

static enum err load(struct creds_conf conf, struct credentials *out, const char **msg)
{
    static char text[1024];
    memset(text, 'x', sizeof text);
    memset(out, 0xAA, sizeof *out);
    enum err e = creds_load(&conf, out, text, sizeof text);
    assert_non_null(memchr(text, '\0', sizeof text));
    assert_null(strchr(text, '\n'));
    assert_true(e == ERR_OK || e == ERR_CREDENTIALS);
    assert_int_equal(text[0] == '\0', e == ERR_OK);
    assert_null(strstr(text, SECRET));
    if (e) { /* nothing half-filled is left */
        static const struct credentials zero;
        assert_memory_equal(out, &zero, sizeof zero);
    }
    *msg = text;
    return e;
}

static void loads(struct creds_conf conf, const char *id, const char *secret, const char *token, const char *region)
{
    struct credentials c;
    const char *msg;
    if (load(conf, &c, &msg)) fail_msg("%s", msg);
    assert_string_equal(c.access_key, id);
    assert_string_equal(c.secret_key, secret);
    assert_string_equal(c.session_token, token);
    assert_string_equal(c.region, region);
    assert_false(c.anonymous);
}

static void fails(struct creds_conf conf, const char *says)
{
    struct credentials c;
    const char *msg;
    assert_int_equal(load(conf, &c, &msg), ERR_CREDENTIALS);
    if (!strstr(msg, says)) fail_msg("\"%s\" does not say \"%s\"", msg, says);
}

static const struct creds_conf from_env = {.source = CREDS_ENV}, from_auto = {.source = CREDS_AUTO},
                               from_profile = {.source = CREDS_PROFILE};

static struct creds_conf profile(const char *name)
{
    return (struct creds_conf){.source = CREDS_PROFILE, .profile = name};
}

static void test_none_is_anonymous(void **state)
{
    (void)state;
    struct credentials c;
    const char *msg;
    assert_int_equal(load((struct creds_conf){.source = CREDS_NONE}, &c, &msg), ERR_OK);
    assert_true(c.anonymous);
    assert_string_equal(c.access_key, "");
}

static void test_static(void **state)
{
    (void)state;
    struct creds_conf c = {.source = CREDS_STATIC, .access_key = ID, .secret_key = SECRET};
    loads(c, ID, SECRET, "", "");
    c.session_token = "token";
    loads(c, ID, SECRET, "token", "");
    c.secret_key = "";
    fails(c, "secret_key");
    c.access_key = NULL;
    fails(c, "access_key");
}

static void test_environment(void **state)
{
    (void)state;
    fails(from_env, "are not set");
    setenv("AWS_ACCESS_KEY_ID", ID, 1);
    fails(from_env, "AWS_SECRET_ACCESS_KEY is not");
    setenv("AWS_SECRET_ACCESS_KEY", SECRET, 1);
    loads(from_env, ID, SECRET, "", "");
    setenv("AWS_SESSION_TOKEN", "t", 1);
    setenv("AWS_DEFAULT_REGION", "eu-west-1", 1);
    loads(from_env, ID, SECRET, "t", "eu-west-1");
    setenv("AWS_REGION", "eu-west-2", 1);
    loads(from_env, ID, SECRET, "t", "eu-west-2");
    setenv("AWS_ACCESS_KEY_ID", "", 1);
    fails(from_env, "AWS_ACCESS_KEY_ID is not");
}

static void test_values_that_cannot_be_sent(void **state)
{
    (void)state;
    char longer[5000];
    memset(longer, 'a', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    setenv("AWS_ACCESS_KEY_ID", ID, 1);
    setenv("AWS_SECRET_ACCESS_KEY", SECRET "\n", 1);
    fails(from_env, "AWS_SECRET_ACCESS_KEY holds white space");
    setenv("AWS_SECRET_ACCESS_KEY", longer, 1);
    fails(from_env, "AWS_SECRET_ACCESS_KEY is longer than 159");
    setenv("AWS_SECRET_ACCESS_KEY", SECRET, 1);
    setenv("AWS_ACCESS_KEY_ID", "a b", 1);
    fails(from_env, "AWS_ACCESS_KEY_ID holds");
    setenv("AWS_ACCESS_KEY_ID", ID, 1);
    setenv("AWS_SESSION_TOKEN", longer, 1);
    fails(from_env, "AWS_SESSION_TOKEN is longer");
    longer[4095] = '\0';
    setenv("AWS_SESSION_TOKEN", longer, 1);
    loads(from_env, ID, SECRET, longer, "");
    setenv("AWS_SESSION_TOKEN", "\xC3\xA4", 1);
    fails(from_env, "AWS_SESSION_TOKEN holds");
}

static void test_profile_files(void **state)
{
    (void)state;
    fails(from_profile, "no profile files");
    put_file(".aws/credentials", "# comment\n"
                                 "[default]\n"
                                 "aws_access_key_id = " ID "\n"
                                 "aws_secret_access_key=" SECRET "\r\n"
                                 "\n"
                                 "; another\n"
                                 "[ two ]\n"
                                 "AWS_ACCESS_KEY_ID=TWO # which\n"
                                 "  aws_secret_access_key = hidden under the key before\n"
                                 "aws_secret_access_key\t=\tsecret#2;x ; but this is a comment\n"
                                 "aws_session_token = a=b==\n"
                                 "[three]\n"
                                 "    aws_access_key_id = THREE\n"
                                 "    aws_secret_access_key = s3\n"
                                 "    aws_security_token = old\n");
    put_file(".aws/config", "[default]\n"
                            "region = us-west-2\n"
                            "s3 =\n"
                            "    region = nested\n"
                            "    aws_access_key_id = nested\n"
                            "output = json\n"
                            "[profile two]\n"
                            "region = eu-north-1\n"
                            "aws_access_key_id = loses\n"
                            "[three]\n"
                            "region = not a profile section\n"
                            "[profile \"with space\"]\n"
                            "aws_access_key_id = FOUR\n"
                            "aws_secret_access_key = s4\n"
                            "region =\n");
    loads(from_profile, ID, SECRET, "", "us-west-2");
    loads(profile("default"), ID, SECRET, "", "us-west-2");
    loads(profile("two"), "TWO", "secret#2;x", "a=b==", "eu-north-1");
    loads(profile("three"), "THREE", "s3", "old", "");
    loads(profile("with space"), "FOUR", "s4", "", "");
    fails(profile("five"), "profile \"five\" not found in");
    fails(profile("Two"), "not found");
    fails(profile("fi\nve"), "profile \"fi?ve\"");
    setenv("AWS_REGION", "ap-south-1", 1);
    loads(profile("two"), "TWO", "secret#2;x", "a=b==", "eu-north-1"); /* the profile's own comes first */
    loads(profile("three"), "THREE", "s3", "old", "ap-south-1");
    setenv("AWS_PROFILE", "two", 1);
    loads(from_profile, "TWO", "secret#2;x", "a=b==", "eu-north-1");
    loads(profile("three"), "THREE", "s3", "old", "ap-south-1");
}

static void test_profile_said_twice(void **state)
{
    (void)state;
    put_file(".aws/credentials", "\xEF\xBB\xBF[default]\naws_access_key_id=one\naws_secret_access_key=s1\n[other]\n"
                                 "aws_access_key_id=x\n[default]\naws_access_key_id=two\n");
    loads(from_profile, "two", "s1", "", "");
}

static void test_profile_without_keys(void **state)
{
    (void)state;
    put_file(".aws/credentials",
             "[half]\naws_access_key_id = " ID "\n[other]\naws_secret_access_key = " SECRET "\n"
             "[bad]\naws_access_key_id = a b\naws_secret_access_key = " SECRET "\n[empty]\n"
             "[broken\naws_access_key_id = x\n[blank]\naws_access_key_id =\naws_secret_access_key = # no\n");
    fails(profile("half"), "has no aws_secret_access_key");
    fails(profile("other"), "has no aws_access_key_id");
    fails(profile("bad"), "aws_access_key_id holds white space");
    fails(profile("empty"), "has no keys");
    fails(profile("blank"), "has no keys");
    fails(profile("broken"), "not found");
}

static void test_profiles_that_need_more(void **state)
{
    (void)state;
    put_file(".aws/credentials", "[rolekeys]\naws_access_key_id = " ID "\naws_secret_access_key = " SECRET "\n"
                                 "[synced]\naws_access_key_id = " ID "\naws_secret_access_key = " SECRET "\n");
    put_file(".aws/config", "[profile role]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = default\n"
                            "[profile rolekeys]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = rolekeys\n"
                            "[profile web]\nrole_arn = arn:aws:iam::1:role/r\nweb_identity_token_file = /t\n"
                            "[profile sso]\nsso_session = s\nsso_account_id = 1\n"
                            "[profile oldsso]\nsso_start_url = https://x\n"
                            "[profile process]\ncredential_process = /bin/true\n"
                            "[profile source]\nsource_profile = default\n"
                            "[profile login]\nlogin_session = x\n"
                            "[profile synced]\nsso_session = s\n");
    fails(profile("role"), "profile \"role\" uses role_arn, which is not supported");
    fails(profile("rolekeys"), "uses role_arn, which is not supported");
    fails(profile("web"), "uses web_identity_token_file, which is not supported");
    fails(profile("sso"), "uses sso, which is not supported");
    fails(profile("oldsso"), "uses sso, which is not supported");
    fails(profile("process"), "uses credential_process, which is not supported");
    fails(profile("source"), "uses source_profile, which is not supported");
    fails(profile("login"), "uses login_session, which is not supported");
    loads(profile("synced"), ID, SECRET, "", ""); /* keys of the same identity, put there by a helper */
}

static void test_other_files(void **state)
{
    (void)state;
    struct creds_conf c = {.source = CREDS_PROFILE, .file = in_home("other")};
    char path[512];
    snprintf(path, sizeof path, "%s", c.file);
    c.file = path;
    put_file(".aws/credentials", "[default]\naws_access_key_id=usual\naws_secret_access_key=s\n");
    fails(c, "cannot open");
    put_file("other", "[default]\naws_access_key_id=o\naws_secret_access_key=s\nregion=r\n"
                      "[profile p]\naws_access_key_id=p\naws_secret_access_key=s\n");
    loads(c, "o", "s", "", "r");
    c.profile = "p";
    loads(c, "p", "s", "", "");
    setenv("AWS_SHARED_CREDENTIALS_FILE", path, 1);
    loads(from_profile, "o", "s", "", "r");
    setenv("AWS_SHARED_CREDENTIALS_FILE", "~/other", 1);
    loads(from_profile, "o", "s", "", "r");
    unsetenv("AWS_SHARED_CREDENTIALS_FILE");
    setenv("AWS_CONFIG_FILE", path, 1);
    loads(from_profile, "usual", "s", "", "r");
    loads(profile("p"), "p", "s", "", "");
}

static void test_files_that_cannot_be_read(void **state)
{
    (void)state;
    char dir[300];
    snprintf(dir, sizeof dir, "%s/.aws", home);
    fails((struct creds_conf){.source = CREDS_PROFILE, .file = dir}, "not a regular file");
    FILE *f = fopen(in_home("big"), "w");
    assert_non_null(f);
    for (int i = 0; i < (1 << 20) + 1; i++) putc('#', f);
    assert_int_equal(fclose(f), 0);
    fails((struct creds_conf){.source = CREDS_PROFILE, .file = in_home("big")}, "File too large");
    setenv("HOME", "/nonexistent/home", 1);
    fails(from_profile, "no profile files: /nonexistent/home/.aws/credentials or /nonexistent/home/.aws/config");
}

static void test_auto(void **state)
{
    (void)state;
    fails(from_auto, "AWS_ACCESS_KEY_ID is not set, and no profile files");
    put_file(".aws/credentials", "[default]\naws_access_key_id=P\naws_secret_access_key=s\n");
    put_file(".aws/config", "[default]\nregion=from-profile\n[profile sso]\nsso_session=x\n");
    loads(from_auto, "P", "s", "", "from-profile");
    setenv("AWS_REGION", "from-env", 1);
    loads(from_auto, "P", "s", "", "from-env");
    unsetenv("AWS_REGION");
    setenv("AWS_ACCESS_KEY_ID", ID, 1);
    fails(from_auto, "AWS_SECRET_ACCESS_KEY is not"); /* half of the environment is a mistake, not a reason to go on */
    setenv("AWS_SECRET_ACCESS_KEY", SECRET, 1);
    loads(from_auto, ID, SECRET, "", "from-profile");
    setenv("AWS_REGION", "from-env", 1);
    loads(from_auto, ID, SECRET, "", "from-env");
    unsetenv("AWS_ACCESS_KEY_ID");
    unsetenv("AWS_SECRET_ACCESS_KEY");
    setenv("AWS_PROFILE", "sso", 1);
    fails(from_auto, "profile \"sso\" uses sso, which is not supported");
}

static void test_message_without_room(void **state)
{
    (void)state;
    struct credentials c;
    char msg[8];
    assert_int_equal(creds_load(&from_env, &c, msg, sizeof msg), ERR_CREDENTIALS);
    assert_int_equal(strlen(msg), sizeof msg - 1);
    assert_int_equal(creds_load(&from_env, &c, NULL, 0), ERR_CREDENTIALS);
}

static void test_wipe(void **state)
{
    (void)state;
    static const struct credentials zero;
    struct credentials c = {.access_key = ID, .secret_key = SECRET, .session_token = "t", .region = "r"};
    creds_wipe(&c);
    assert_memory_equal(&c, &zero, sizeof c);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_none_is_anonymous),
        TEST(test_static),
        TEST(test_environment),
        TEST(test_values_that_cannot_be_sent),
        TEST(test_profile_files),
        TEST(test_profile_said_twice),
        TEST(test_profile_without_keys),
        TEST(test_profiles_that_need_more),
        TEST(test_other_files),
        TEST(test_files_that_cannot_be_read),
        TEST(test_auto),
        TEST(test_message_without_room),
        TEST(test_wipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
