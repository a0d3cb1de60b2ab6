//! The rules, each with the page that says it.

/// A rule of a format or a cloud.
#[derive(Debug)]
pub struct Rule {
    /// Its name here.
    pub name: &'static str,
    /// What it asks for.
    pub says: &'static str,
    /// The page, specification or report that says so.
    pub source: &'static str,
}

const VHD: &str = "Virtual Hard Disk Image Format Specification 1.0 (Microsoft, 2006)";
const AZURE: &str = "https://learn.microsoft.com/azure/virtual-machines/linux/create-upload-generic";
const VHDX: &str = "https://learn.microsoft.com/openspecs/windows_protocols/ms-vhdx";
const GOOGLE: &str = "https://cloud.google.com/compute/docs/import/import-existing-image";
const GNU_TAR: &str = "https://www.gnu.org/software/tar/manual/html_node/Standard.html";
const GZIP: &str = "https://www.rfc-editor.org/rfc/rfc1952";
const UEFI: &str = "UEFI Specification 2.10, 5.3 (GPT disk layout)";
const EBS: &str = "https://docs.aws.amazon.com/ebs/latest/userguide/writesnapshots.html";
const VMDK: &str = "Virtual Disk Format 5.0 (VMware, 2011)";
const OVF: &str = "DMTF DSP0243 2.1 (Open Virtualization Format)";
const LUMEN: &str = "https://www.ctl.io/knowledge-base/servers/self-service-vm-import/";
const QCOW2: &str = "https://www.qemu.org/docs/master/interop/qcow2.html";
const GLANCE: &str = "https://docs.openstack.org/glance/latest/user/formats.html";
const VDI: &str = "https://forums.virtualbox.org/viewtopic.php?t=8046";

macro_rules! rules {
    ($($name:literal $source:ident $says:literal)*) => {
        /// Every rule.
        pub const RULES: &[Rule] = &[$(Rule { name: $name, says: $says, source: $source }),*];
    };
}

const HERE: &str = "this crate";
const ORACLE: &str = "https://docs.oracle.com/iaas/Content/Compute/Tasks/importingcustomimagelinux.htm";

rules! {
    "rule.known" HERE "every rule that a check names is in this list"
    "azure.size" AZURE "the disk has a whole number of MiB; with the footer the file has 512 bytes more"
    "vhd.cookie" VHD "the last 512 bytes are a footer that begins with 'conectix'"
    "vhd.checksum" VHD "the footer's checksum is the complement of the sum of its other bytes"
    "vhd.features" VHD "the reserved feature bit is set, no unknown one is"
    "vhd.version" VHD "the format's version is 1.0"
    "vhd.fixed" AZURE "the disk is a fixed one: type 2"
    "vhd.data-offset" VHD "a fixed disk has no header: the offset is all ones"
    "vhd.current-size" VHD "the current size is that of the disk in the file"
    "vhd.original-size" VHD "a disk that was never resized has its first size"
    "vhd.creator-host" VHD "the creator's host is Windows ('Wi2k') or Macintosh ('Mac '): FreeBSD r284773 found that Azure insists"
    "vhd.geometry" VHD "cylinders, heads and sectors are those of the size, or the largest, which say that the size counts (QEMU fb9245c)"
    "vhd.id" VHD "the disk has an identifier"
    "vhd.saved-state" VHD "the machine is not in a saved state"
    "vhd.reserved" VHD "what is reserved is zero"
    "gpt.primary" UEFI "the first header and its entries are where the protective MBR says, with right checksums"
    "gpt.backup-at-end" UEFI "the second header is in the disk's last sector, and the first one names it"
    "gpt.last-usable" UEFI "the last usable sector is before the second header's entries, and both headers agree"
    "gpt.copies-agree" UEFI "both headers tell of the same disk and the same partitions"
    "gpt.partitions" UEFI "partitions are within the usable sectors"
    "vhdx.identifier" VHDX "the file begins with 'vhdxfile'"
    "vhdx.headers" VHDX "both headers have their signature and a right CRC-32C"
    "vhdx.version" VHDX "the version is 1, that of the log 0"
    "vhdx.log-empty" VHDX "nothing is to be replayed: the log's identifier is zero"
    "vhdx.log-place" VHDX "the log is within the file, in whole MiB"
    "vhdx.regions" VHDX "two equal region tables with right CRC-32C name block table and metadata, and nothing unknown that is required"
    "vhdx.aligned" VHDX "regions begin at whole MiB and have whole MiB"
    "vhdx.within" VHDX "regions and blocks are within the file"
    "vhdx.places" VHDX "no two parts of the file share bytes"
    "vhdx.metadata" VHDX "the metadata begin with their table"
    "vhdx.items" VHDX "all required items are there, and none that is unknown is required"
    "vhdx.no-parent" VHDX "the disk has no parent"
    "vhdx.block" VHDX "blocks have 1 to 256 MiB, a power of two"
    "vhdx.sectors" VHDX "sectors have 512 or 4096 bytes"
    "vhdx.size" VHDX "the disk has whole sectors and at most 64 TiB"
    "vhdx.table" VHDX "the block table has an entry for each block"
    "vhdx.bitmaps" VHDX "a disk without parent has no sector bitmaps"
    "vhdx.entries" VHDX "entries of the block table have a known state and no reserved bits"
    "gce.gzip" GZIP "the file is one gzip member, whole and with a right checksum"
    "gce.tar" GNU_TAR "the archive has one member, then records of zeros"
    "gce.member" GOOGLE "the only member is disk.raw"
    "gce.old-gnu" GOOGLE "the archive is in the old GNU form: magic 'ustar  ', type 0 or S"
    "gce.tar-sum" GNU_TAR "the header's checksum is the sum of its bytes"
    "gce.size" GOOGLE "the disk has a whole number of GiB"
    "gce.map" GNU_TAR "the sparse map is in order, within the disk, reaches its end, and adds up to what is stored"
    "ebs.blocks" EBS "a snapshot is written in blocks of 512 KiB"
    "ebs.size" EBS "a volume has whole GiB, at most 64 TiB"
    "raw.sectors" HERE "a disk has whole sectors of 512 bytes"
    "vmdk.magic" VMDK "the file begins with 'KDMV'"
    "vmdk.version" VMDK "streamOptimized has version 3"
    "vmdk.flags" VMDK "newline test, compressed grains and markers are announced"
    "vmdk.newlines" VMDK "the four bytes that tell of a copy as text are right"
    "vmdk.deflate" VMDK "grains are compressed with deflate"
    "vmdk.grain" VMDK "grains have 128 sectors, tables 512 entries"
    "vmdk.clean" VMDK "the file was closed properly"
    "vmdk.descriptor" VMDK "a descriptor of version 1 is inside"
    "vmdk.no-parent" VMDK "no parent is named"
    "vmdk.type" VMDK "the descriptor's type is streamOptimized"
    "vmdk.extent" VMDK "the descriptor has one extent with the header's capacity"
    "vmdk.footer" VMDK "a footer behind its marker repeats the header, which points at it"
    "vmdk.end-marker" VMDK "the last sector is the end marker: zeros"
    "vmdk.directory" VMDK "the grain directory and its tables are within the file"
    "vmdk.markers" VMDK "a marker stands before each table and before the directory"
    "vmdk.grain-marker" VMDK "each grain says its own sector and its length"
    "vmdk.grain-data" VMDK "each grain gives 64 KiB"
    "vmdk.capacity" VMDK "grains are within the capacity"
    "vmdk.places" VMDK "no two parts of the file share bytes"
    "ova.tar" OVF "an appliance is a tar whose headers have right checksums"
    "ova.ustar" OVF "the archive is in the USTAR form and holds plain files"
    "ova.first" OVF "the description is the first member"
    "ova.manifest" OVF "a manifest names every other member"
    "ova.digest-kind" OVF "the manifest's digests are SHA-256; Lumen takes SHA-1"
    "ova.digests" OVF "the manifest's digests are those of the members"
    "ovf.xml" OVF "the description is XML"
    "ovf.files" OVF "files that the description names are in the archive"
    "ovf.sizes" OVF "the sizes that the description says are those of the members"
    "ovf.one-disk" HERE "what is made here has one disk"
    "ovf.format" OVF "the disk's format is said to be streamOptimized"
    "ovf.capacity" OVF "the capacity that the description says is that of the disk"
    "lumen.name" LUMEN "the description's name has no '.' and no '-'"
    "lumen.hardware" LUMEN "the machine's hardware is of version 11, 12 or 13"
    "lumen.devices" LUMEN "one SCSI controller, no IDE, one network adapter"
    "cloud.size" ORACLE "the disk's size is one that the cloud takes (Oracle at most 400 GB; IBM 10 to 250 GB; Lumen below 1 TB)"
    "qcow2.magic" QCOW2 "the file begins with a header of version 2 or 3"
    "qcow2.no-backing" GLANCE "no backing file is named"
    "qcow2.plain" QCOW2 "the disk is not encrypted"
    "qcow2.no-snapshots" QCOW2 "there are no snapshots"
    "qcow2.no-data-file" GLANCE "the data is in the file itself"
    "qcow2.clean" QCOW2 "the file was closed properly and is not damaged"
    "qcow2.features" GLANCE "no incompatible feature above bit 3"
    "qcow2.compression" QCOW2 "the kind of compression is known, and the feature bit agrees with it"
    "qcow2.clusters" QCOW2 "clusters have 512 bytes to 2 MiB"
    "qcow2.tables" QCOW2 "tables and clusters are whole clusters within the file"
    "qcow2.l1" QCOW2 "the L1 table is long enough for the disk"
    "qcow2.refcounts" QCOW2 "each cluster of the file is counted as often as it is used: no leak, no error"
    "qcow2.copied" QCOW2 "an entry says that its cluster is used once when it is"
    "qcow2.once" QCOW2 "without snapshots no cluster is used twice"
    "vdi.signature" VDI "the header has its signature"
    "vdi.version" VDI "the version is 1.1"
    "vdi.kind" VDI "the image is dynamic or fixed"
    "vdi.sector" VDI "sectors have 512 bytes"
    "vdi.places" VDI "map and data begin at whole sectors, in this order"
    "vdi.block" VDI "blocks have 1 MiB or more, a power of two"
    "vdi.size" VDI "the disk has whole sectors, and as many blocks as it needs"
    "vdi.id" VDI "the disk has an identifier"
    "vdi.no-parent" VDI "no parent is named"
    "vdi.map" VDI "each block of the file belongs to one of the disk"
    "vdi.length" VDI "the file ends with its last block"
}

pub(crate) fn named(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}
