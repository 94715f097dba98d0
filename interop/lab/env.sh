# Settings of the lab, sourced by its scripts.  Each can be set from outside.
LAB=$(cd "$(dirname "$0")" && pwd)
: "${WIREMESH_INTEROP_CACHE:=${XDG_CACHE_HOME:-$HOME/.cache}/wiremesh-interop}"
CACHE=$WIREMESH_INTEROP_CACHE/lab      # downloads and build results, kept between runs
: "${LAB_ID:=lab}"                     # part of every name below, so that runs do not meet
: "${LAB_NETNS:=wmi-$LAB_ID}"       # the namespace that holds the host's end of the link
: "${LAB_TAP:=wmi-tap}"                # the host's end of the link
: "${LAB_HOST4:=10.99.0.1}" "${LAB_HOST6:=fd99::1}"      # its addresses
: "${LAB_GUEST4:=10.99.0.2}" "${LAB_GUEST6:=fd99::2}"    # the guest's addresses
CTL=/run/wiremesh-interop/$LAB_ID        # pid, console, keys: a folder that host and guest share
: "${LAB_MEMORY_MIB:=1024}" "${LAB_CPUS:=2}"
