# s3dlio-cli: everything but its main() is a library, so that unit tests can use it.
noinst_LIBRARIES += libcli.a
libcli_a_SOURCES = \
    src/cli/admin.c \
    src/cli/bench_count.c \
    src/cli/bench_objects.c \
    src/cli/bench_pattern.c \
    src/cli/bench_report.c \
    src/cli/bench_run.c \
    src/cli/bodies.c \
    src/cli/call.c \
    src/cli/cmd_bench.c \
    src/cli/cmd_buckets.c \
    src/cli/cmd_cached.c \
    src/cli/cmd_completion.c \
    src/cli/cmd_health.c \
    src/cli/cmd_ls.c \
    src/cli/cmd_mark.c \
    src/cli/cmd_purge.c \
    src/cli/cmd_rm.c \
    src/cli/cmd_stat.c \
    src/cli/cmd_stats.c \
    src/cli/cmd_warm.c \
    src/cli/complete.c \
    src/cli/delete_doc.c \
    src/cli/lines.c \
    src/cli/lister.c \
    src/cli/manual.c \
    src/cli/net.c \
    src/cli/oplog.c \
    src/cli/options.c \
    src/cli/out.c \
    src/cli/pattern.c \
    src/cli/place.c \
    src/cli/progress.c \
    src/cli/remove.c \
    src/cli/stats_view.c \
    src/cli/stats_watch.c
noinst_HEADERS += \
    src/cli/admin.h \
    src/cli/bench.h \
    src/cli/buckets.h \
    src/cli/call.h \
    src/cli/cli.h \
    src/cli/commands.h \
    src/cli/complete.h \
    src/cli/delete_doc.h \
    src/cli/lines.h \
    src/cli/lister.h \
    src/cli/net.h \
    src/cli/oplog.h \
    src/cli/pattern.h \
    src/cli/place.h \
    src/cli/progress.h \
    src/cli/remove.h \
    src/cli/stats_view.h \
    src/cli/stats_watch.h
bin_PROGRAMS += s3dlio-cli
s3dlio_cli_SOURCES = src/cli/main.c
s3dlio_cli_LDADD = libcli.a libs3p.a $(DEPS_LIBS)

dist_man1_MANS = man/s3dlio-cli.1
bashcompletiondir = $(datadir)/bash-completion/completions
nodist_bashcompletion_DATA = completions/bash/s3dlio-cli
zshcompletiondir = $(datadir)/zsh/site-functions
nodist_zshcompletion_DATA = completions/zsh/_s3dlio-cli
fishcompletiondir = $(datadir)/fish/vendor_completions.d
nodist_fishcompletion_DATA = completions/fish/s3dlio-cli.fish
CLEANFILES = $(nodist_bashcompletion_DATA) $(nodist_zshcompletion_DATA) $(nodist_fishcompletion_DATA)
$(nodist_bashcompletion_DATA): s3dlio-cli
	$(AM_V_GEN)$(MKDIR_P) completions/bash && ./s3dlio-cli completion bash > $@
$(nodist_zshcompletion_DATA): s3dlio-cli
	$(AM_V_GEN)$(MKDIR_P) completions/zsh && ./s3dlio-cli completion zsh > $@
$(nodist_fishcompletion_DATA): s3dlio-cli
	$(AM_V_GEN)$(MKDIR_P) completions/fish && ./s3dlio-cli completion fish > $@

# Transfers
libcli_a_SOURCES += \
    src/cli/ask.c \
    src/cli/cmd_cp.c \
    src/cli/cmd_get.c \
    src/cli/cmd_put.c \
    src/cli/copy.c \
    src/cli/download.c \
    src/cli/download_finish.c \
    src/cli/download_part.c \
    src/cli/download_state.c \
    src/cli/multipart.c \
    src/cli/outfile.c \
    src/cli/paths.c \
    src/cli/source_local.c \
    src/cli/source_remote.c \
    src/cli/sums.c \
    src/cli/transfer.c \
    src/cli/upload.c \
    src/cli/upload_part.c
noinst_HEADERS += \
    src/cli/ask.h \
    src/cli/cmd_transfer.h \
    src/cli/copy.h \
    src/cli/download.h \
    src/cli/download_impl.h \
    src/cli/multipart.h \
    src/cli/outfile.h \
    src/cli/paths.h \
    src/cli/sources.h \
    src/cli/sums.h \
    src/cli/transfer.h \
    src/cli/upload.h \
    src/cli/upload_impl.h
