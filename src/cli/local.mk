# s3dlio-cli: everything but its main() is a library, so that unit tests can use it.
noinst_LIBRARIES += libcli.a
libcli_a_SOURCES = \
    src/cli/admin.c \
    src/cli/bodies.c \
    src/cli/call.c \
    src/cli/cmd_buckets.c \
    src/cli/cmd_cached.c \
    src/cli/cmd_completion.c \
    src/cli/cmd_health.c \
    src/cli/cmd_ls.c \
    src/cli/cmd_mark.c \
    src/cli/cmd_purge.c \
    src/cli/cmd_rm.c \
    src/cli/cmd_stat.c \
    src/cli/cmd_warm.c \
    src/cli/complete.c \
    src/cli/delete_doc.c \
    src/cli/cmd_stats.c \
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
    src/cli/buckets.h \
    src/cli/call.h \
    src/cli/cli.h \
    src/cli/commands.h \
    src/cli/complete.h \
    src/cli/delete_doc.h \
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
