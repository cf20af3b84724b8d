# A small real S3 server for the compose files: versitygw over a directory, which checks every signature.
FROM golang:1.26-bookworm AS build
RUN CGO_ENABLED=0 go install github.com/versity/versitygw/cmd/versitygw@v1.2.0 \
 && install -D /go/bin/versitygw /image/usr/local/bin/versitygw \
 && install -d -o 10001 -g 10001 /image/data /image/iam

FROM debian:bookworm-slim
COPY --from=build /image/ /
USER 10001:10001
VOLUME /data
EXPOSE 7070
HEALTHCHECK --interval=5s --timeout=3s --retries=5 CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/7070"]
ENTRYPOINT ["/usr/local/bin/versitygw", "--port", ":7070", "--keep-alive", "--iam-dir", "/iam"]
CMD ["posix", "/data"]
