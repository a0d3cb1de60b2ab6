//! The description of a machine.

use crate::{Error, Result};

/// How the machine starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Firmware {
    /// The old way.
    #[default]
    Bios,
    /// UEFI.
    Efi,
}

/// Digests of the manifest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManifestDigest {
    /// Of OVF 2.0, taken by everything of this decade.
    #[default]
    Sha256,
    /// Of OVF 1.0: older vCloud and Lumen take only this one.
    Sha1,
}

/// The machine that an appliance describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appliance {
    /// Its name, and that of the files: letters, digits, `-` and `_` (Lumen refuses `-`).
    pub name: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// How it starts.
    pub firmware: Firmware,
    /// Digests of the manifest.
    pub manifest: ManifestDigest,
}

impl Default for Appliance {
    fn default() -> Self {
        Self {
            name: "machine".to_owned(),
            cpus: 2,
            memory_mib: 4096,
            firmware: Firmware::Bios,
            manifest: ManifestDigest::Sha256,
        }
    }
}

impl Appliance {
    pub(super) fn check(&self) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(plain) {
            return Err(Error::Usage(format!(
                "'{}' is no name for an appliance: 1 to 64 letters, digits, '-' and '_'",
                self.name.escape_debug()
            )));
        }
        if self.cpus == 0 || self.memory_mib == 0 {
            return Err(Error::Usage("an appliance needs at least one processor and 1 MiB of memory".to_owned()));
        }
        Ok(())
    }
    pub(super) fn disk_name(&self) -> String {
        format!("{}-disk1.vmdk", self.name)
    }
}

/// What the description says of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFacts {
    /// Name of its file.
    pub file: String,
    /// Length of that file, bytes.
    pub file_bytes: u64,
    /// The disk's size, bytes.
    pub virtual_bytes: u64,
    /// Bytes of it that hold something.
    pub data_bytes: u64,
}

/// The description alone, for who takes OVF and disk as two files (vCloud, Lumen).
pub fn ovf(appliance: &Appliance, disk: &DiskFacts) -> Result<String> {
    appliance.check()?;
    if disk.file.contains(['"', '<', '&', '/', '\\']) {
        return Err(Error::Usage(format!("'{}' is no name for a disk's file", disk.file.escape_debug())));
    }
    let (name, hardware) = (&appliance.name, hardware(appliance));
    let DiskFacts { file, file_bytes, virtual_bytes, data_bytes } = disk;
    Ok(format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <References>
    <File ovf:href="{file}" ovf:id="file1" ovf:size="{file_bytes}"/>
  </References>
  <DiskSection>
    <Info>The machine's disk</Info>
    <Disk ovf:capacity="{virtual_bytes}" ovf:capacityAllocationUnits="byte" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized" ovf:populatedSize="{data_bytes}"/>
  </DiskSection>
  <NetworkSection>
    <Info>The machine's network</Info>
    <Network ovf:name="network1">
      <Description>The machine's network</Description>
    </Network>
  </NetworkSection>
  <VirtualSystem ovf:id="{name}">
    <Info>A virtual machine</Info>
    <Name>{name}</Name>
    <OperatingSystemSection ovf:id="101" vmw:osType="otherLinux64Guest">
      <Info>The guest's operating system</Info>
    </OperatingSystemSection>
{hardware}  </VirtualSystem>
</Envelope>
"#
    ))
}

/// Processors, memory, a SCSI controller with the disk, a network adapter. The elements of an item stand in the
/// alphabet's order: readers that validate by the schema insist on it.
fn hardware(appliance: &Appliance) -> String {
    let Appliance { name, cpus, memory_mib, .. } = appliance;
    let firmware = match appliance.firmware {
        Firmware::Bios => "bios",
        Firmware::Efi => "efi",
    };
    format!(
        r#"    <VirtualHardwareSection>
      <Info>The machine's hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{name}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
        <rasd:Description>Number of virtual processors</rasd:Description>
        <rasd:ElementName>{cpus} virtual processors</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>{cpus}</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:Description>Memory</rasd:Description>
        <rasd:ElementName>{memory_mib} MiB of memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>{memory_mib}</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:Description>SCSI controller</rasd:Description>
        <rasd:ElementName>SCSI controller 0</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>lsilogic</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:ElementName>Hard disk 1</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource>
        <rasd:InstanceID>4</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>7</rasd:AddressOnParent>
        <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>
        <rasd:Connection>network1</rasd:Connection>
        <rasd:ElementName>Network adapter 1</rasd:ElementName>
        <rasd:InstanceID>5</rasd:InstanceID>
        <rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType>
      </Item>
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="{firmware}"/>
    </VirtualHardwareSection>
"#
    )
}
