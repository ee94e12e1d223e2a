# The images of the agent and of the controller: docs/images.md.
ARG RUST=1.95.0

# Compiles for the target on the builder's own processor.
FROM --platform=$BUILDPLATFORM rust:${RUST}-bookworm AS build
ARG TARGETARCH
RUN case $(dpkg --print-architecture)-$TARGETARCH in \
    amd64-arm64) packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross" target=aarch64 ;; \
    arm64-amd64) packages="gcc-x86-64-linux-gnu libc6-dev-amd64-cross" target=x86_64 ;; \
    *) exit 0 ;; \
    esac && \
    apt-get update && \
    apt-get install --yes --no-install-recommends $packages && \
    rustup target add $target-unknown-linux-gnu
WORKDIR /src
COPY . .
RUN tools/image-roots "$TARGETARCH" /images

FROM scratch AS ipvs-controller
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title=ipvs-controller \
    org.opencontainers.image.description="Accepts the objects of ipvs-operator, and turns the directors' reports into conditions" \
    org.opencontainers.image.licenses=Apache-2.0 \
    org.opencontainers.image.version=$VERSION \
    org.opencontainers.image.revision=$REVISION
COPY --from=build /images/ipvs-controller /
USER 65532:65532
ENTRYPOINT ["/usr/bin/ipvs-controller"]

FROM scratch AS ipvs-agent
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title=ipvs-agent \
    org.opencontainers.image.description="Writes the IPVS table of one director, holds its VIPs, and reports" \
    org.opencontainers.image.licenses=Apache-2.0 \
    org.opencontainers.image.version=$VERSION \
    org.opencontainers.image.revision=$REVISION
COPY --from=build /images/ipvs-agent /
# Its capabilities are root's; the chart takes all others away.
USER 0:0
ENTRYPOINT ["/usr/bin/ipvs-agent"]
