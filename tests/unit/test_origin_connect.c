/* test_origin_connect.c - names and connects: the address cache with a scripted resolver, trying several addresses, TLS.
 * Includes dns.c to put the resolver in and to turn its clock. */
#include "origin_env.h"

#include <netdb.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

/* ---- a resolver that says what the test wants */

static struct {
    _Atomic unsigned calls;
    _Atomic unsigned delay_ms;
    _Atomic bool fail;
    _Atomic unsigned n;
    const char *_Atomic hosts[8]; /* numeric */
} resolver;

static int fake_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **out)
{
    struct addrinfo *first = NULL, **tail = &first;
    if (hints->ai_flags & AI_NUMERICHOST) return getaddrinfo(host, port, hints, out);
    atomic_fetch_add(&resolver.calls, 1);
    sleep_ms(atomic_load(&resolver.delay_ms));
    if (atomic_load(&resolver.fail)) return EAI_AGAIN;
    for (unsigned i = 0, n = atomic_load(&resolver.n); i < n; i++) {
        const char *numeric = atomic_load(&resolver.hosts[i]);
        struct addrinfo *ai = calloc(1, sizeof *ai + sizeof(struct sockaddr_in6));
        ai->ai_addr = (struct sockaddr *)(ai + 1);
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)ai->ai_addr;
        struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)ai->ai_addr;
        bool is_v6 = strchr(numeric, ':') != NULL;
        ai->ai_family = is_v6 ? AF_INET6 : AF_INET;
        ai->ai_addrlen = is_v6 ? sizeof *v6 : sizeof *v4;
        ai->ai_addr->sa_family = (sa_family_t)ai->ai_family;
        inet_pton(ai->ai_family, numeric, is_v6 ? (void *)&v6->sin6_addr : (void *)&v4->sin_addr);
        *(is_v6 ? &v6->sin6_port : &v4->sin_port) = htons((uint16_t)atoi(port));
        *tail = ai;
        tail = &ai->ai_next;
    }
    *out = first;
    return 0;
}

static void fake_freeaddrinfo(struct addrinfo *ai)
{
    for (struct addrinfo *next; ai; ai = next) {
        next = ai->ai_next;
        free(ai);
    }
}

#define getaddrinfo fake_getaddrinfo
#define freeaddrinfo fake_freeaddrinfo
#include "origin/dns.c"
#undef getaddrinfo
#undef freeaddrinfo

static void resolve_to(unsigned n, const char *const *hosts)
{
    atomic_store(&resolver.calls, 0);
    atomic_store(&resolver.delay_ms, 0);
    atomic_store(&resolver.fail, false);
    for (unsigned i = 0; i < n; i++) atomic_store(&resolver.hosts[i], hosts[i]);
    atomic_store(&resolver.n, n);
}

/* ---- the cache */

static struct loop *loop;
static struct mailbox *mailbox;
static struct dns *dns;
static unsigned answers, wanted;

static int dns_setup(void **state)
{
    (void)state;
    static const char *const hosts[] = {"10.0.0.1", "10.0.0.2", "fd00::1", "10.0.0.3"};
    resolve_to(4, hosts);
    answers = 0;
    if (loop_create(&loop) != ERR_OK || mailbox_create(loop, &mailbox) != ERR_OK) return -1;
    return dns_create("some.test", 80, &dns) == ERR_OK ? 0 : -1;
}

static int dns_teardown(void **state)
{
    (void)state;
    dns_destroy(dns);
    mailbox_destroy(mailbox);
    loop_destroy(loop);
    return 0;
}

static void answered(struct dns_wait *w)
{
    (void)w;
    if (++answers == wanted) loop_stop(loop);
}

static enum err ask(struct dns_wait *w)
{
    w->mailbox = mailbox;
    w->done = answered;
    return dns_lookup(dns, w);
}

static enum err ask_and_wait(struct dns_wait *w)
{
    wanted = answers + 1;
    enum err e = ask(w);
    if (e != ERR_AGAIN) return e;
    loop_run(loop);
    return w->result;
}

static void age(uint64_t ms)
{
    pthread_mutex_lock(&dns->lock);
    dns->good_ms -= ms;
    dns->tried_ms -= ms;
    pthread_mutex_unlock(&dns->lock);
}

static bool looking(void)
{
    pthread_mutex_lock(&dns->lock);
    bool is = dns->looking;
    pthread_mutex_unlock(&dns->lock);
    return is;
}

static void test_lookups_coalesce(void **state)
{
    (void)state;
    struct dns_wait w[5];
    atomic_store(&resolver.delay_ms, 50);
    wanted = 5;
    for (int i = 0; i < 5; i++) assert_int_equal(ask(&w[i]), ERR_AGAIN);
    loop_run(loop);
    assert_int_equal(atomic_load(&resolver.calls), 1);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(w[i].result, ERR_OK);
        assert_int_equal(w[i].list.n, 4);
    }
    assert_int_equal(ask(&w[0]), ERR_OK); /* from memory */
    assert_int_equal(atomic_load(&resolver.calls), 1);
}

static void test_order_spreads_alternates_and_avoids_failures(void **state)
{
    (void)state;
    struct dns_wait w;
    unsigned first[4] = {0};
    assert_int_equal(ask_and_wait(&w), ERR_OK);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(ask(&w), ERR_OK);
        assert_int_equal(w.list.at[0].ss.ss_family, AF_INET);
        assert_int_equal(w.list.at[1].ss.ss_family, AF_INET6);
        first[ntohl(((struct sockaddr_in *)(void *)&w.list.at[0].ss)->sin_addr.s_addr) & 3]++;
    }
    for (int i = 1; i < 4; i++) assert_true(first[i] > 50);
    struct address bad = w.list.at[0];
    dns_mark(dns, &bad, false);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(ask(&w), ERR_OK);
        assert_int_equal(w.list.n, 4);
        assert_true(address_eq(&w.list.at[3], &bad));
    }
    dns_mark(dns, &bad, true);
    bool seen = false;
    for (int i = 0; i < 50; i++) {
        ask(&w);
        seen |= address_eq(&w.list.at[0], &bad);
    }
    assert_true(seen);
}

static void test_old_addresses_serve_while_they_are_looked_up_again(void **state)
{
    (void)state;
    struct dns_wait w;
    assert_int_equal(ask_and_wait(&w), ERR_OK);
    age(REFRESH_MS);
    atomic_store(&resolver.n, 2);
    atomic_store(&resolver.delay_ms, 30);
    assert_int_equal(ask(&w), ERR_OK);
    assert_int_equal(w.list.n, 4);
    while (looking()) sleep_ms(5);
    assert_int_equal(ask(&w), ERR_OK);
    assert_int_equal(w.list.n, 2);
    assert_int_equal(atomic_load(&resolver.calls), 2);
}

static void test_old_addresses_serve_when_the_refresh_fails(void **state)
{
    (void)state;
    struct dns_wait w;
    assert_int_equal(ask_and_wait(&w), ERR_OK);
    atomic_store(&resolver.fail, true);
    age(STALE_MAX_MS); /* so old that the refresh is waited for */
    assert_int_equal(ask_and_wait(&w), ERR_OK);
    assert_int_equal(w.list.n, 4);
    assert_int_equal(atomic_load(&resolver.calls), 2);
    assert_int_equal(ask(&w), ERR_OK); /* and not at once again */
    assert_int_equal(atomic_load(&resolver.calls), 2);
}

static void test_failures_are_remembered_for_a_moment(void **state)
{
    (void)state;
    struct dns_wait w;
    atomic_store(&resolver.fail, true);
    assert_int_equal(ask_and_wait(&w), ERR_DNS);
    assert_int_equal(ask(&w), ERR_DNS);
    assert_int_equal(atomic_load(&resolver.calls), 1);
    age(AFTER_FAILURE_MS);
    atomic_store(&resolver.fail, false);
    assert_int_equal(ask_and_wait(&w), ERR_OK);
}

static void test_withdrawn_waiters_hear_nothing(void **state)
{
    (void)state;
    struct dns_wait a, b;
    atomic_store(&resolver.delay_ms, 30);
    wanted = 1;
    assert_int_equal(ask(&a), ERR_AGAIN);
    assert_int_equal(ask(&b), ERR_AGAIN);
    assert_true(dns_withdraw(&a));
    loop_run(loop);
    assert_int_equal(answers, 1);
    assert_int_equal(b.result, ERR_OK);
}

static void test_destroyed_while_looking(void **state)
{
    (void)state;
    struct dns_wait w;
    struct dns *other;
    assert_int_equal(dns_create("other.test", 80, &other), ERR_OK);
    atomic_store(&resolver.delay_ms, 50);
    w.mailbox = mailbox;
    w.done = answered;
    assert_int_equal(dns_lookup(other, &w), ERR_AGAIN);
    assert_true(dns_withdraw(&w));
    dns_destroy(other); /* does not wait for the resolver */
    sleep_ms(100);
}

static void test_numeric_hosts_need_no_resolver(void **state)
{
    (void)state;
    const char *hosts[] = {"192.0.2.7", "2001:db8::7"};
    for (int i = 0; i < 2; i++) {
        struct dns *d;
        struct dns_wait w;
        assert_int_equal(dns_create(hosts[i], 8080, &d), ERR_OK);
        assert_int_equal(dns_lookup(d, &w), ERR_OK);
        assert_int_equal(w.list.n, 1);
        dns_destroy(d);
    }
    assert_int_equal(atomic_load(&resolver.calls), 0);
}

/* ---- connects over several addresses */

static struct server server;
static struct origin_conf conf;
static struct env env;

static int setup(void **state)
{
    (void)state;
    server_start(&server);
    conf = env_conf(server.port);
    strcpy(conf.endpoint.host, "several.test");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    server_stop(&server);
    return 0;
}

static enum err end_of(const char *path)
{
    struct get g;
    get_path(&g, &env, path, 1000);
    enum err e = g.end;
    get_free(&g);
    return e;
}

static void test_the_next_address_is_tried(void **state)
{
    (void)state;
    static const char *const hosts[] = {"127.0.0.2", "::1", "127.0.0.3", "127.0.0.1"}; /* only the last listens */
    resolve_to(4, hosts);
    env_open(&env, &conf, NULL);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(end_of("/until/1"), ERR_OK); /* a new connection each time */
        assert_true(stat_get(&origin_worker_stats(env.worker)->conn_open) == 0);
    }
    assert_int_equal(atomic_load(&resolver.calls), 1);
    env_close(&env);
}

static void test_a_silent_address_costs_a_quarter_of_a_second(void **state)
{
    (void)state;
    static const char *const hosts[] = {"127.0.0.2", "127.0.0.1"};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)server.port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), fill[6], one = 1;
    inet_pton(AF_INET, "127.0.0.2", &a.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 0), 0);
    for (size_t i = 0; i < ARRAY_LEN(fill); i++) { /* its backlog is full: it answers nothing more */
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (connect(fill[i], (struct sockaddr *)&a, sizeof a) == 0) continue;
    }
    sleep_ms(50);
    resolve_to(2, hosts);
    env_open(&env, &conf, NULL);
    for (int i = 0; i < 4; i++) {
        uint64_t start = clock_ns();
        assert_int_equal(end_of("/until/1"), ERR_OK);
        assert_true(clock_ns() - start < 900000000u);
    }
    env_close(&env);
    for (size_t i = 0; i < ARRAY_LEN(fill); i++) close(fill[i]);
    close(fd);
}

static void test_all_addresses_refuse(void **state)
{
    (void)state;
    static const char *const hosts[] = {"127.0.0.2", "127.0.0.3"};
    resolve_to(2, hosts);
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/size/1"), ERR_REFUSED);
    env_close(&env);
}

static void test_a_resolver_that_hangs(void **state)
{
    (void)state;
    static const char *const hosts[] = {"127.0.0.1"};
    resolve_to(1, hosts);
    atomic_store(&resolver.delay_ms, 400);
    conf.connect_ms = 100;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/size/1"), ERR_DNS);
    env_close(&env); /* the lookup goes on and is waited for by nobody */
    sleep_ms(450);
}

static void test_cancel_during_lookup_and_connect(void **state)
{
    (void)state;
    static const char *const hosts[] = {"127.0.0.2", "127.0.0.1"};
    resolve_to(2, hosts);
    for (unsigned i = 0; i < 30; i++) {
        struct get g;
        atomic_store(&resolver.delay_ms, i % 3);
        env_open(&env, &conf, NULL);
        get_init(&g, &env, "/size/1", 10);
        get_submit(&g);
        env_run(&env, i % 5);
        if (!g.done) origin_cancel(g.call);
        env_close(&env); /* at times with the answer of the lookup still in the mailbox */
        get_free(&g);
    }
}

/* ---- TLS */

static struct {
    int fd;
    pthread_t thread;
    SSL_CTX *ctx;
    _Atomic bool stop;
    _Atomic unsigned resumed, handshakes;
    char ca_path[64], sni[64];
} tls_server;

static X509 *cert_make(EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key, const char *alt_names)
{
    X509 *cert = X509_new();
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), (long)(random_u64() >> 34) + 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)(issuer ? "leaf" : "CA"), -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(issuer ? issuer : cert));
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer ? issuer : cert, cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, issuer ? NID_subject_alt_name : NID_basic_constraints,
                                              issuer ? alt_names : "critical,CA:TRUE");
    X509_add_ext(cert, ext, -1);
    X509_EXTENSION_free(ext);
    assert_true(X509_sign(cert, issuer_key ? issuer_key : key, EVP_sha256()) > 0);
    return cert;
}

static void tls_serve(SSL *ssl)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%s\r\nok";
    char buf[4096], text[128];
    int n;
    while ((n = SSL_read(ssl, buf, sizeof buf - 1)) > 0) { /* a request fits into one record */
        buf[n] = '\0';
        bool last = strstr(buf, "/last") != NULL;
        snprintf(text, sizeof text, answer, last ? "Connection: close\r\n" : "");
        if (SSL_write(ssl, text, (int)strlen(text)) <= 0 || last) break;
    }
    SSL_shutdown(ssl);
}

static void *tls_main(void *arg)
{
    (void)arg;
    while (!atomic_load(&tls_server.stop)) {
        struct pollfd p = {.fd = tls_server.fd, .events = POLLIN};
        if (poll(&p, 1, 20) <= 0) continue;
        int fd = accept(tls_server.fd, NULL, NULL);
        if (fd < 0) continue;
        struct timeval patience = {.tv_sec = 2};
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        SSL *ssl = SSL_new(tls_server.ctx);
        SSL_set_fd(ssl, fd);
        if (SSL_accept(ssl) == 1) {
            const char *sni = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
            snprintf(tls_server.sni, sizeof tls_server.sni, "%s", sni ? sni : "");
            atomic_fetch_add(&tls_server.handshakes, 1);
            if (SSL_session_reused(ssl)) atomic_fetch_add(&tls_server.resumed, 1);
            tls_serve(ssl);
        }
        SSL_free(ssl);
        close(fd);
    }
    return NULL;
}

static int tls_setup(void **state)
{
    (void)state;
    unsigned port;
    EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *key = EVP_EC_gen("P-256");
    X509 *ca = cert_make(ca_key, NULL, NULL, NULL), *leaf = cert_make(key, ca, ca_key, "DNS:origin.test");
    memset(&tls_server, 0, sizeof tls_server);
    strcpy(tls_server.ca_path, "/tmp/test_origin_ca.XXXXXX");
    FILE *f = fdopen(mkstemp(tls_server.ca_path), "w");
    PEM_write_X509(f, ca);
    fclose(f);
    tls_server.ctx = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate(tls_server.ctx, leaf);
    SSL_CTX_use_PrivateKey(tls_server.ctx, key);
    SSL_CTX_set_session_id_context(tls_server.ctx, (const unsigned char *)"t", 1);
    X509_free(ca);
    X509_free(leaf);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(key);
    tls_server.fd = listen_any(&port);
    listen(tls_server.fd, 16);
    conf = env_conf(port);
    conf.endpoint.https = true;
    conf.ca_file = tls_server.ca_path;
    conf.tls_server_name = (char *)"origin.test";
    conf.http2 = HTTP2_OFF; /* what is offered otherwise is test_origin_h2's business */
    return pthread_create(&tls_server.thread, NULL, tls_main, NULL);
}

static int tls_teardown(void **state)
{
    (void)state;
    atomic_store(&tls_server.stop, true);
    pthread_join(tls_server.thread, NULL);
    close(tls_server.fd);
    SSL_CTX_free(tls_server.ctx);
    return unlink(tls_server.ca_path);
}

static void test_tls_connection_is_reused_and_sessions_resume(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/a"), ERR_OK);
    assert_int_equal(end_of("/b"), ERR_OK);
    assert_int_equal(end_of("/last"), ERR_OK);
    assert_int_equal(atomic_load(&tls_server.handshakes), 1);
    assert_int_equal(stat_get(&origin_worker_stats(env.worker)->conn_reused), 2);
    assert_int_equal(end_of("/last"), ERR_OK);
    assert_int_equal(atomic_load(&tls_server.handshakes), 2);
    assert_int_equal(atomic_load(&tls_server.resumed), 1);
    env_close(&env);
    assert_string_equal(tls_server.sni, "origin.test");
}

static void test_tls_name_must_match(void **state)
{
    (void)state;
    conf.tls_server_name = (char *)"other.test";
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/a"), ERR_TLS);
    assert_int_equal(stat_get(&origin_worker_stats(env.worker)->errors_tls), 1);
    env_close(&env);
    conf.tls_verify = false;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/a"), ERR_OK);
    env_close(&env);
}

static void test_tls_unknown_issuer(void **state)
{
    (void)state;
    conf.ca_file = NULL; /* the system's store */
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/a"), ERR_TLS);
    env_close(&env);
}

#define D(name) cmocka_unit_test_setup_teardown(name, dns_setup, dns_teardown)
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define S(name) cmocka_unit_test_setup_teardown(name, tls_setup, tls_teardown)
int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    if (hash_init() != ERR_OK) return 1;
    const struct CMUnitTest tests[] = {
        D(test_lookups_coalesce),
        D(test_order_spreads_alternates_and_avoids_failures),
        D(test_old_addresses_serve_while_they_are_looked_up_again),
        D(test_old_addresses_serve_when_the_refresh_fails),
        D(test_failures_are_remembered_for_a_moment),
        D(test_withdrawn_waiters_hear_nothing),
        D(test_destroyed_while_looking),
        D(test_numeric_hosts_need_no_resolver),
        T(test_the_next_address_is_tried),
        T(test_a_silent_address_costs_a_quarter_of_a_second),
        T(test_all_addresses_refuse),
        T(test_a_resolver_that_hangs),
        T(test_cancel_during_lookup_and_connect),
        S(test_tls_connection_is_reused_and_sessions_resume),
        S(test_tls_name_must_match),
        S(test_tls_unknown_issuer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
